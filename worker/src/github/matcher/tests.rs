#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn matchers(json: &serde_json::Value) -> Matchers {
    let mut matchers = Matchers::default();
    matchers.add(serde_json::json!({ "problemMatcher": json }).to_string().as_bytes()).unwrap();
    matchers
}

fn seen(matchers: &mut Matchers, lines: &[&str]) -> Vec<String> {
    let shown = |a: Annotation| {
        let place = [a.line, a.column].map(|n| n.map(|n| n.to_string()).unwrap_or_default()).join(":");
        let title = a.title.unwrap_or_default();
        format!("{} {} {place} {title} {}", a.level, a.file.unwrap_or_default(), a.message)
    };
    lines.iter().filter_map(|line| matchers.look(line, "/workspace")).map(shown).collect()
}

#[test]
fn steps_that_run_at_once_add_to_the_matchers_of_their_job_and_take_away_only_what_they_removed() {
    let with = |matchers: &mut Matchers, owner: &str| {
        let file = serde_json::json!({"problemMatcher": [{"owner": owner, "pattern": [{"regexp": format!("^({owner})$"), "message": 1}]}]});
        matchers.add(file.to_string().as_bytes()).unwrap();
    };
    let mut job = Matchers::default();
    ["a", "b"].iter().for_each(|owner| with(&mut job, owner));
    let (mut one, mut two, before) = (job.clone(), job.clone(), job.clone());
    with(&mut one, "c");
    one.remove("a");
    with(&mut two, "d");
    job.learn(&before, two);
    job.learn(&before, one);
    let found = |word: &&&str| job.clone().look(word, "").is_some();
    assert_eq!(["a", "b", "c", "d"].iter().filter(found).copied().collect::<Vec<_>>(), ["b", "c", "d"]);
}

#[test]
fn one_line_gives_file_place_severity_code_and_message() {
    let mut gcc = matchers(&serde_json::json!([{"owner": "gcc", "pattern": [{
        "regexp": r"^(.+?):(\d+):(\d+):\s+(?:fatal )?(\w+): (.*?)(?: \[([^[\]]+)\])?$",
        "file": 1, "line": 2, "column": 3, "severity": 4, "message": 5, "code": 6,
    }]}]));
    let lines = [
        "/workspace/src/a.c:3:7: warning: unused [-Wunused]",
        "src/b.c:4:1: error: bad",
        "/usr/include/x.h:1:2: error: elsewhere",
        "a.c:1:1: remark: not a severity",
        "nothing to see",
    ];
    let expected = ["warning src/a.c 3:7 -Wunused unused", "error src/b.c 4:1  bad", "error  1:2  elsewhere"];
    assert_eq!(seen(&mut gcc, &lines), expected);
}

#[test]
fn the_last_of_several_patterns_may_repeat() {
    let mut eslint = matchers(&serde_json::json!([{"owner": "eslint", "pattern": [
        {"regexp": r"^([^\s].*)$", "file": 1},
        {"regexp": r"^\s+(\d+):(\d+)\s+(error|warning)\s+(.*)\s\s+(.*)$",
         "line": 1, "column": 2, "severity": 3, "message": 4, "code": 5, "loop": true},
    ]}]));
    let lines = [
        "test.js",
        "  1:0   error  Missing  strict",
        "  5:10  warning  Unused  no-unused",
        "",
        "  9:9  error  Alone  x",
    ];
    let expected = ["error test.js 1:0 strict Missing", "warning test.js 5:10 no-unused Unused"];
    assert_eq!(seen(&mut eslint, &lines), expected);
    seen(&mut eslint, &["test.js"]);
    eslint.reset();
    assert_eq!(seen(&mut eslint, &["  1:0   error  Missing  strict"]), [""; 0]);
}

#[test]
fn three_lines_in_a_row_make_one_problem_and_a_path_may_come_from_another() {
    let mut matchers = matchers(&serde_json::json!([{"owner": "x", "severity": "notice", "pattern": [
        {"regexp": "^at (.*)$", "fromPath": 1}, {"regexp": "^file (.*)$", "file": 1}, {"regexp": "^why (.*)$", "message": 1},
    ]}]));
    let lines = ["at sub/p.proj", "file a.x", "why one", "at sub/p.proj", "other", "file a.x", "why two"];
    assert_eq!(seen(&mut matchers, &lines), ["notice sub/a.x :  one"]);
}

#[test]
fn the_newest_matcher_comes_first_and_an_owner_has_one() {
    let simple = |owner: &str, level: &str| serde_json::json!({"owner": owner, "severity": level, "pattern": [{"regexp": "(.*)", "message": 1}]});
    let mut matchers = matchers(&serde_json::json!([simple("a", "error"), simple("b", "warning")]));
    assert_eq!(seen(&mut matchers, &["x"]), ["warning  :  x"]);
    matchers.remove("B");
    assert_eq!(seen(&mut matchers, &["x"]), ["error  :  x"]);
    matchers.add(serde_json::json!({"problemMatcher": [simple("A", "notice")]}).to_string().as_bytes()).unwrap();
    assert_eq!(seen(&mut matchers, &["x"]), ["notice  :  x"]);
    matchers.remove("a");
    assert!(matchers.is_empty());
}

#[test]
fn matchers_that_break_the_rules_are_refused_with_the_rule() {
    for (matcher, part) in [
        (serde_json::json!({"pattern": [{"regexp": "x", "message": 0}]}), "owner"),
        (serde_json::json!({"owner": "o"}), "1 to 10 patterns"),
        (serde_json::json!({"owner": "o", "severity": "bad", "pattern": [{"regexp": "x", "message": 0}]}), "severity"),
        (serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "message": 0, "loop": true}]}), "loop"),
        (serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "file": 0}]}), "message"),
        (serde_json::json!({"owner": "o", "pattern": [{"regexp": "(?=x)", "message": 0}]}), "not supported"),
        (serde_json::json!({"owner": "o", "pattern": [{"regexp": "a{1000}{1000}", "message": 0}]}), "not supported"),
        (
            serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "message": 0}, {"regexp": "y", "message": 0}]}),
            "same property",
        ),
    ] {
        let text = serde_json::json!({"problemMatcher": [matcher]}).to_string();
        let error = Matchers::default().add(text.as_bytes()).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert!(Matchers::default().add(b"{}").is_err());
}

#[test]
fn attack_10_an_expression_that_would_hold_others_up_takes_no_longer() {
    let mut matchers = matchers(&serde_json::json!([{"owner": "o", "pattern": [{"regexp": "^(a+)+$", "message": 1}]}]));
    let line = format!("{}!", "a".repeat(LINE - 1));
    let began = std::time::Instant::now();
    assert_eq!(seen(&mut matchers, &[&line]), [""; 0]);
    assert!(began.elapsed().as_secs() < 60);
}

#[test]
fn expressions_of_javascript_mean_the_same_here() {
    for (regexp, line) in [
        (r"^[^[]+\[x\]$", "a[x]"),
        (r"[a&&b]+", "&"),
        (r"^\/x$", "/x"),
        (r"[\]]", "]"),
        (r"[+--]", ","),
        (r"^[--/]$", "."),
        (r"^[\w-.]+$", "a-.b"),
        (r"^[a-c-]+$", "b-"),
        (r"^\w\W[\w.]\b[^\W]$", "aé.b"),
        (r"^[\D]\d[\d-]$", "é1-"),
    ] {
        assert!(Regex::new(&portable(regexp)).unwrap().is_match(line), "{regexp}");
    }
}

#[test]
fn attack_10_expressions_that_count_high_are_refused_at_once() {
    let began = std::time::Instant::now();
    for regexp in [
        "((a{1,1000}){1,1000}){1,1000}",
        r"\w{1000}",
        "(x{100}y{100}){100}",
        &"(".repeat(200),
        &"[a-z]?".repeat(12_000),
        &"a".repeat(EXPRESSIONS + 1),
    ] {
        let file =
            serde_json::json!({"problemMatcher": [{"owner": "o", "pattern": [{"regexp": regexp, "message": 0}]}]});
        let refused = Matchers::default().add(file.to_string().as_bytes()).unwrap_err();
        assert!(refused.contains("not supported") || refused.contains("KiB"), "{refused}");
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn expressions_that_actions_bring_are_small_enough() {
    // Of setup-node, setup-dotnet, setup-go, setup-python and rust's.
    for regexp in [
        r"^(?:\s+\d+\>)?([^\s].*)\((\d+|\d+,\d+|\d+,\d+,\d+,\d+)\)\s*:\s+(error|warning|info)\s+(\w{1,2}\d+)\s*:\s*(.*)$",
        r"^\s*(\d+):(\d+)\s+(error|warning|info)\s+(.+)\s\s+(.+)$",
        r"^([^\s].*)[\(:](\d+)[,:](\d+)(?:\):\s+|\s+-\s+)(error|warning|info)\s+TS(\d+)\s*:\s*(.*)$",
        r"^\s*(\.{0,2}[\/\\].+\.go):(?:(\d+):(\d+):)? (.*)",
        r#"^\s*File\s\"(.*)\",\sline\s(\d+),\sin\s(.*)$"#,
        r"^(warning|warn|error)(\[(\S*)\])?: (.*)$",
        r"^([\s->=]*(.*):(\d*):(\d*)|.*)$",
    ] {
        let file =
            serde_json::json!({"problemMatcher": [{"owner": "o", "pattern": [{"regexp": regexp, "message": 1}]}]});
        Matchers::default().add(file.to_string().as_bytes()).unwrap();
    }
}

#[test]
fn attack_10_matchers_that_took_their_time_look_no_further_in_any_step_of_the_job() {
    let any = serde_json::json!([{"owner": "o", "pattern": [{"regexp": "(.*)", "message": 1}]}]);
    let mut job = matchers(&any);
    let mut step = job.clone();
    assert!(step.look("x", "").is_some() && step.say_over().is_none());
    step.time.0.nanoseconds.fetch_add(TIME.as_nanos() as u64, Ordering::Relaxed);
    assert!(step.look("x", "").is_none() && step.is_empty());
    assert!(job.look("x", "").is_none() && job.is_empty());
    assert!(job.say_over().unwrap().contains("30 s"));
    assert_eq!(step.say_over(), None, "it is said once");
}

#[test]
fn attack_10_the_costliest_matchers_cost_a_job_little_more_than_their_time() {
    let costly = |number: usize| {
        serde_json::json!({"owner": format!("o{number}"), "pattern": [
            {"regexp": "((?:[a-q][^u-z]{13}){4}\\W)", "message": 1},
        ]})
    };
    let mut matchers = matchers(&(0..MATCHERS).map(costly).collect());
    let line = "aqbc".repeat(LINE / 4);
    let mut longest = Duration::ZERO;
    matchers.time.0.nanoseconds.fetch_add(TIME.as_nanos() as u64 - 100_000_000, Ordering::Relaxed);
    for _ in 0..1000 {
        let began = Instant::now();
        matchers.look(&line, "");
        longest = longest.max(began.elapsed());
    }
    assert!(matchers.is_empty());
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
