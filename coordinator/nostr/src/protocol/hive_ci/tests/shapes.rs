//! The shapes of jobs that clients send.

use super::*;

impl Sent {
    fn command(&mut self, command: &str, args: &[&str]) {
        Sent::set(&mut self.job, &["cmd", command]);
        Sent::without(&mut self.job, "args");
        let mut tag = list(&["args"]);
        tag.extend(list(args));
        self.job.push(tag);
    }
}

#[test]
fn each_shape_is_taken_or_refused_by_name() {
    let heredoc = "cat > /tmp/r.sh <<'HIVE_CI_RUNNER_SCRIPT_EOF_DELIMITER'\n#!/bin/bash\n";
    let checked = format!("{DOWNLOAD} && echo 00 | sha256sum -c");
    let cases: [(&str, &str, &[&str], Option<&str>); 9] = [
        ("t01 A1", "bash", &["-c", DOWNLOAD], None),
        ("t04 A2", "bash", &["-lc", heredoc], None),
        ("t05 A4", "bash", &["-c", &checked], None),
        ("A3", "bash", &["-lc", "echo \"Runner script will be injected at submit time\""], Some("placeholder")),
        ("t06 A5", "sh", &["-c", "git clone x && act", "hive-ci", "u", COMMIT, "push", "w"], None),
        ("A6", "loom-ci", &["run", "--repo", "x", "--ref", "main"], None),
        ("A6", "loom-ci", &["run", "--repo", "x", "--dep", "lib=https://x@00"], Some("`--dep`")),
        ("A7", "bash", &["-c", "git clone x; act -W ci.yml"], None),
        ("other", "bash", &["-c", "rm -rf /"], Some("no Hive CI job")),
    ];
    for (name, command, args, refused) in cases {
        let mut sent = Sent::budabit();
        sent.command(command, args);
        match refused {
            None => {
                sent.taken();
            }
            Some(text) => assert!(sent.refused().reason.contains(text), "{name}: {}", sent.refused().reason),
        }
    }
}

#[test]
fn what_a_run_leaves_out_its_jobs_arguments_say_and_what_it_says_itself_counts() {
    let args = ["-c", "git clone x && act", "hive-ci", "https://x", COMMIT, "pull_request", "a.yml"];
    let mut sent = Sent::budabit();
    sent.command("sh", &args);
    let (request, _) = sent.taken();
    assert_eq!((request.workflow.as_str(), request.trigger.as_deref()), (".github/workflows/ci.yml", Some("manual")));
    assert!(request.notices.iter().any(|notice| notice.contains("another workflow")), "{:?}", request.notices);
    for name in ["workflow", "commit", "trigger"] {
        Sent::without(&mut sent.run, name);
    }
    let (request, _) = sent.taken();
    assert_eq!((request.workflow.as_str(), request.commit.as_str()), ("a.yml", COMMIT));
    assert_eq!(request.trigger.as_deref(), Some("pull_request"));

    let mut sent = Sent::budabit();
    for name in ["workflow", "commit", "branch"] {
        Sent::without(&mut sent.run, name);
    }
    let run = "ab".repeat(32);
    let args =
        ["run", "--repo", "https://x", "--ref", "refs/tags/v1", "--workflow", "b.yml", "--event", "push", "--run"];
    sent.command("loom-ci", &[&args[..], &[&run]].concat());
    let (request, _) = sent.taken();
    assert_eq!((request.workflow.as_str(), request.reference.as_deref()), ("b.yml", Some("refs/tags/v1")));
    assert!(request.notices.iter().any(|notice| notice.contains("`--run`")), "{:?}", request.notices);

    let mut sent = Sent::budabit();
    Sent::without(&mut sent.run, "workflow");
    sent.command("bash", &["-c", "cd x && sudo act -W '.github/workflows/old.yaml' --env A=b"]);
    assert_eq!(sent.taken().0.workflow, ".github/workflows/old.yaml");
}

#[test]
fn a_job_of_the_first_clients_is_its_own_run() {
    let mut sent = Sent::budabit();
    sent.command("bash", &["-c", "git clone x; act -W old.yml"]);
    sent.job.push(list(&["a", &format!("30617:{}:my-repo", sent.owner.public_key())]));
    sent.job.push(list(&["branch", "dev"]));
    let job = signed(JOB, &sent.job, &sent.author, sent.at);
    let limits = Limits::default();
    let context = ReadContext { keys: &sent.pool, limits: &limits, commands: false, now: NOW };
    let EventMeaning::Request { partner: None } = HiveCi.read(&job, &context) else {
        panic!("it waits, or is refused")
    };
    let (request, secrets) = HiveCi.request(&job, None, &context).unwrap();
    assert_eq!((request.workflow.as_str(), request.branch.as_str()), ("old.yml", "dev"));
    assert_eq!(request.repository.address, format!("30617:{}:my-repo", sent.owner.public_key()));
    let origin = request.origin.nostr().unwrap();
    assert!(secrets.publisher.is_none() && origin.run.is_none() && origin.publisher.is_none());
    let finished = ended(Conclusion::Success, None, 0);
    let drafts = report("run", &request, &finished, &sent.pool.public_key());
    assert_eq!(kinds(&drafts), [RESULT, STATUS], "there is no run that a 5402 could be of");
}
