//! Logs as the web client's viewer parses them, from whole runs.

use longshore_tests::{
    harness::client::{kind, tag},
    oracle::act_log::{ParsedJob, Status, parse},
};

use super::{PATH, Stage, needs_engine};

fn job<'a>(jobs: &'a [ParsedJob], name: &str) -> &'a ParsedJob {
    jobs.iter().find(|job| job.name == name).unwrap_or_else(|| panic!("no job {name} in {jobs:?}"))
}

fn steps(job: &ParsedJob) -> Vec<(&str, Status)> {
    job.steps.iter().map(|step| (step.name.as_str(), step.status)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t36_jobs_and_steps_show_with_names_statuses_and_durations() {
    needs_engine!();
    let stage = Stage::with(
        "name: CI\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - {name: one, run: echo 1}\n      \
         - {name: two, run: sleep 1}\n      - {name: three, run: echo 3}\n  check:\n    runs-on: ubuntu-latest\n    steps:\n      \
         - {name: four, run: echo 4}\n      - {name: five, run: exit 1}\n      - {name: six, run: echo 6, if: always()}\n",
    )
    .await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("failed");
    let jobs = parse(&run.log().await);
    assert_eq!(jobs.len(), 2, "{jobs:?}");
    let build = job(&jobs, "build");
    assert_eq!(build.status, Status::Success);
    for name in ["Main one", "Main two", "Main three"] {
        assert!(steps(build).contains(&(name, Status::Success)), "{:?}", steps(build));
    }
    let two = build.steps.iter().find(|step| step.name == "Main two").unwrap().duration_us.unwrap();
    assert!((1_000_000..2_000_000).contains(&two), "{two} µs");
    let check = job(&jobs, "check");
    assert_eq!(check.status, Status::Failure);
    assert!(steps(check).contains(&("Main five", Status::Failure)));
    assert!(steps(check).contains(&("Main six", Status::Success)));
}

#[tokio::test(flavor = "multi_thread")]
async fn t40_build_and_build_2_are_two_jobs() {
    needs_engine!();
    let job_of =
        |name: &str| format!("  {name}:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo from {name}\n");
    let stage = Stage::with(&format!("on: push\njobs:\n{}{}", job_of("build"), job_of("build-2"))).await;
    let run = stage.run(stage.press()).await;
    let jobs = parse(&run.log().await);
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    for name in ["build", "build-2"] {
        let said = job(&jobs, name)
            .steps
            .iter()
            .flat_map(|step| &step.lines)
            .any(|line| line.contains(&format!("from {name}")));
        assert!(said, "{jobs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t43_odd_output_keeps_every_line_in_its_step() {
    needs_engine!();
    let script = "          printf '10%%\\r50%%\\r100%%\\n'\n          printf 'crlf\\r\\n'\n          printf 'sep\\xe2\\x80\\xa8arated\\n'\n          \
                  head -c 2000000 /dev/zero | tr '\\0' x\n          echo\n          printf '\\xff\\xfe broken\\n'\n";
    let stage = Stage::with(&format!(
        "name: CI\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - name: odd\n        run: |\n{script}      \
         - name: next\n        run: echo after\n"
    ))
    .await;
    let run = stage.run(stage.press()).await;
    let log = run.log().await;
    assert!(log.lines().all(|line| line.starts_with("[CI/build] ")), "every line has its prefix");
    assert!(!log.contains('\r') && !log.contains('\u{2028}'));
    let jobs = parse(&log);
    let build = job(&jobs, "build");
    let next = build.steps.iter().find(|step| step.name == "Main next").unwrap();
    assert!(next.lines.iter().all(|line| !line.contains('x') || line.contains("echo")), "{:?}", next.lines);
    let odd = build.steps.iter().find(|step| step.name == "Main odd").unwrap();
    assert!(odd.lines.iter().any(|line| line.contains("100%")) && odd.lines.iter().any(|line| line.contains("broken")));
}

#[tokio::test(flavor = "multi_thread")]
async fn t46_markup_is_text_in_the_log_and_on_our_page() {
    needs_engine!();
    let script = "<script>alert(1)</script>";
    let stage = Stage::with(&format!(
        "name: CI\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - name: \"{script}\"\n        run: echo '{script}'\n"
    ))
    .await;
    let run = stage.run(stage.press()).await;
    assert!(run.log().await.contains(script));
    let page = reqwest::get(format!("{}/runs/{}", stage.dev.http, run.job.id.to_hex())).await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src"));
    let text = page.text().await.unwrap();
    assert!(!text.contains(script), "{text}");
    assert!(text.contains("&lt;script&gt;") || text.contains("&#60;script&#62;"), "the name is shown: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t47_steps_without_names_are_named_as_act_names_them() {
    needs_engine!();
    let stage = Stage::with(
        "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          \
         echo first line\n          echo second line\n",
    )
    .await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("completed");
    let jobs = parse(&run.log().await);
    let build = job(&jobs, "build");
    for name in ["Main actions/checkout@v4", "Main echo first line"] {
        assert!(steps(build).contains(&(name, Status::Success)), "{:?}", steps(build));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t48_skipped_and_tolerated_steps_fail_nothing() {
    needs_engine!();
    let stage = Stage::with(
        "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - {name: never, run: exit 1, if: false}\n      \
         - {name: tolerated, run: exit 1, continue-on-error: true}\n      - {name: fine, run: echo fine}\n",
    )
    .await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("completed");
    let log = run.log().await;
    assert!(!log.contains('❌'), "{log}");
    let jobs = parse(&log);
    assert_eq!(job(&jobs, "build").status, Status::Success);
    assert_eq!(tag(run.answers.only(kind::WORKFLOW_RESULT).unwrap(), "workflow"), PATH);
}
