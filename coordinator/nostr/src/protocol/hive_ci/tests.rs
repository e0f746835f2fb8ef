#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp, nips::nip44};
use secrecy::ExposeSecret;
use workflow::plan::{Conclusion, Reason};

use domain::run::{FinalizedLog, OriginEvent, RequestOrigin, RunEnd, RunUpdate};
use store::Signer;

use super::*;
use config::Limits;
use domain::run::Millis;

mod shapes;

const NOW: Millis = 1_780_000_000_000;
const COMMIT: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const DOWNLOAD: &str = "curl -fsSL \"https://blossom.example/00\" -o /tmp/run-workflow.sh && chmod +x \
                        /tmp/run-workflow.sh && /tmp/run-workflow.sh";

/// What a client sends, as lists that a case changes before it is signed.
struct Sent {
    pool: Keys,
    author: Keys,
    run_author: Keys,
    publisher: Keys,
    owner: Keys,
    run: Vec<Vec<String>>,
    job: Vec<Vec<String>>,
    at: u64,
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn signed(kind: u16, tags: &[Vec<String>], keys: &Keys, at: u64) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
        .custom_created_at(Timestamp::from(at))
        .sign_with_keys(keys)
        .unwrap()
}

impl Sent {
    /// As Budabit sends a press of "Run".
    fn budabit() -> Self {
        let (pool, author, publisher, owner) = (Keys::generate(), Keys::generate(), Keys::generate(), Keys::generate());
        let a = format!("30617:{}:my-repo", owner.public_key());
        let run = vec![
            list(&["a", &a]),
            list(&["workflow", ".github/workflows/ci.yml"]),
            list(&["triggered-by", &author.public_key().to_hex()]),
            list(&["publisher", &publisher.public_key().to_hex()]),
            list(&["trigger", "manual"]),
            list(&["branch", "main"]),
            list(&["commit", COMMIT]),
            list(&["t", "hive-ci"]),
        ];
        let job = vec![
            list(&["p", &pool.public_key().to_hex()]),
            list(&["cmd", "bash"]),
            list(&["args", "-c", DOWNLOAD]),
            list(&["env", "HIVE_CI_REPOSITORY", "nostr://npub1x/wss%3A%2F%2Frelay.example/my-repo"]),
            list(&["env", "HIVE_CI_RELAYS", "wss://relay.example,wss://second.example"]),
        ];
        let mut sent = Self { run_author: author.clone(), pool, author, publisher, owner, run, job, at: NOW / 1000 };
        let key = sent.publisher.secret_key().to_secret_hex();
        sent.secret(PUBLISHER_SECRET, &key);
        sent
    }

    fn secret(&mut self, name: &str, value: &str) {
        let sealed =
            nip44::encrypt(self.author.secret_key(), &self.pool.public_key(), value, nip44::Version::V2).unwrap();
        self.job.retain(|tag| tag[1] != name);
        self.job.push(list(&["secret", name, &sealed]));
    }

    fn set(tags: &mut Vec<Vec<String>>, tag: &[&str]) {
        tags.retain(|old| old[0] != tag[0]);
        tags.push(list(tag));
    }

    fn without(tags: &mut Vec<Vec<String>>, name: &str) {
        tags.retain(|tag| tag[0] != name);
    }

    fn pair(&self) -> (Event, Event) {
        let run = signed(RUN, &self.run, &self.run_author, self.at);
        let mut job = self.job.clone();
        if !job.iter().any(|tag| tag[0] == "e") {
            job.push(list(&["e", &run.id.to_hex()]));
        }
        (signed(JOB, &job, &self.author, self.at), run)
    }

    fn read(&self) -> Result<(RunRequest, Secrets), Rejection> {
        let (job, run) = self.pair();
        let limits = Limits::default();
        let context = ReadContext { keys: &self.pool, limits: &limits, commands: false, now: NOW };
        HiveCi.request(&job, Some(&run), &context)
    }

    fn taken(&self) -> (RunRequest, Secrets) {
        self.read().unwrap_or_else(|rejection| panic!("{rejection:?}"))
    }

    fn refused(&self) -> Refusal {
        match self.read() {
            Err(Rejection::Refused(refusal)) => *refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// What is published about a run.
fn report(run: &str, request: &RunRequest, update: &RunUpdate, us: &PublicKey) -> Vec<Draft> {
    HiveCi.report(&run.into(), request.origin.nostr().unwrap(), update, us)
}

fn values(draft: &Draft, name: &str) -> Vec<String> {
    let tags = draft.event.tags.iter().map(Tag::as_slice);
    tags.filter(|tag| tag[0] == name).map(|tag| tag[1].clone()).collect()
}

fn kinds(drafts: &[Draft]) -> Vec<u16> {
    drafts.iter().map(|draft| draft.event.kind.as_u16()).collect()
}

fn ended(conclusion: Conclusion, reason: Option<Reason>, exit_code: i32) -> RunUpdate {
    RunUpdate::Finished {
        stamp: 100,
        end: RunEnd { conclusion, reason, exit_code, at: NOW },
        log: FinalizedLog { url: format!("https://ci.example/{}", "a".repeat(64)), ..FinalizedLog::default() },
        duration_s: 7,
        definitions: Vec::new(),
    }
}

#[test]
fn t01_a_pair_as_budabit_sends_it_becomes_a_request() {
    let sent = Sent::budabit();
    let (request, secrets) = sent.taken();
    let (job, run) = sent.pair();
    assert_eq!(request.id, job.id.to_hex());
    assert_eq!(request.workflow, ".github/workflows/ci.yml");
    assert_eq!((request.commit.as_str(), request.branch.as_str()), (COMMIT, "main"));
    assert_eq!(request.trigger.as_deref(), Some("manual"));
    assert_eq!(request.repository.owner, sent.owner.public_key().to_hex());
    assert_eq!(request.repository.relays, ["wss://relay.example", "wss://second.example"]);
    assert!(request.env.is_empty(), "HIVE_CI_ values are not the workflow's");
    assert_eq!(request.notices, Vec::<String>::new());
    assert_eq!(secrets.publisher.unwrap().public_key(), sent.publisher.public_key());
    assert!(secrets.values.is_empty(), "the publisher key is shown to no job");
    let origin = request.origin.nostr().unwrap();
    assert_eq!(origin.request, OriginEvent { kind: JOB, id: job.id.to_hex() });
    assert_eq!(origin.run, Some(OriginEvent { kind: RUN, id: run.id.to_hex() }));
    assert_eq!(origin.publisher, Some(sent.publisher.public_key().to_hex()));
}

#[test]
fn t03_the_older_address_kind_names_the_same_repository() {
    let mut sent = Sent::budabit();
    let owner = sent.owner.public_key();
    Sent::set(&mut sent.run, &["a", &format!("30618:{owner}:my:repo")]);
    assert_eq!(sent.taken().0.repository.address, format!("30617:{owner}:my:repo"));
}

#[test]
fn an_edited_command_is_taken_where_the_job_names_its_run() {
    let mut sent = Sent::budabit();
    Sent::set(&mut sent.job, &["args", "-c", "my own wrapper"]);
    let run = sent.pair().1.id.to_hex();
    sent.job.push(list(&["env", "HIVE_CI_RUN_ID", &run]));
    sent.taken();
}

#[test]
fn t05_a_watcher_names_the_event_and_the_full_ref() {
    let mut sent = Sent::budabit();
    Sent::set(&mut sent.run, &["trigger", "push"]);
    Sent::set(&mut sent.run, &["branch", "v1"]);
    Sent::set(&mut sent.run, &["ref", "refs/tags/v1"]);
    let (request, _) = sent.taken();
    assert_eq!(request.trigger.as_deref(), Some("push"));
    assert_eq!(request.reference.as_deref(), Some("refs/tags/v1"));
}

#[test]
fn t06_the_publisher_key_may_be_bech32_with_spaces() {
    use nostr::ToBech32;
    let mut sent = Sent::budabit();
    let key = format!(" {}\n", sent.publisher.secret_key().to_bech32().unwrap());
    sent.secret(PUBLISHER_SECRET, &key);
    assert!(sent.taken().1.publisher.is_some());
}

#[test]
fn t08_an_empty_commit_asks_for_the_branch() {
    let mut sent = Sent::budabit();
    Sent::set(&mut sent.run, &["commit", ""]);
    sent.job.push(list(&["env", "HIVE_CI_COMMIT", ""]));
    let (request, _) = sent.taken();
    assert_eq!((request.commit.as_str(), request.branch.as_str()), ("", "main"));
    let drafts = report("run", &request, &ended(Conclusion::Success, None, 0), &sent.pool.public_key());
    assert_eq!(values(&drafts[1], "commit"), Vec::<String>::new(), "the 5402 echoes no commit");
}

#[test]
fn t09_a_key_that_is_not_the_publisher_is_refused_without_5402() {
    let mut sent = Sent::budabit();
    sent.secret(PUBLISHER_SECRET, &Keys::generate().secret_key().to_secret_hex());
    let refusal = sent.refused();
    let log = FinalizedLog { url: "https://ci.example/aa".into(), ..FinalizedLog::default() };
    let drafts = HiveCi.refuse(&refusal, Some(&log), 50, &sent.pool.public_key());
    assert_eq!(kinds(&drafts), [RESULT, STATUS]);
    assert_eq!(values(&drafts[0], "success"), ["false"]);
    assert!(values(&drafts[0], "error")[0].contains("publisher"));
    assert_eq!(values(&drafts[1], "status"), ["failed"]);
}

#[test]
fn t15_t16_what_is_not_ours_or_no_job_is_not_answered() {
    type Change = fn(&mut Sent);
    let other = |sent: &mut Sent| Sent::set(&mut sent.job, &["p", &Keys::generate().public_key().to_hex()]);
    let also = |sent: &mut Sent| sent.job.push(list(&["p", &Keys::generate().public_key().to_hex()]));
    let none = |sent: &mut Sent| Sent::without(&mut sent.job, "p");
    let image = |sent: &mut Sent| {
        Sent::without(&mut sent.job, "cmd");
        Sent::without(&mut sent.job, "args");
        sent.job.push(list(&["i", "a harbour at dawn", "text"]));
    };
    let foreign = |sent: &mut Sent| sent.run_author = Keys::generate();
    let cases: [(&str, Change, Ignored); 5] = [
        ("t15 another worker", other, Ignored::NotOurs),
        ("t15 several workers", also, Ignored::NotOurs),
        ("no worker", none, Ignored::NotOurs),
        ("t16 an image request", image, Ignored::NotAJob),
        ("a stranger's job on a run", foreign, Ignored::ForeignRun),
    ];
    for (name, change, expected) in cases {
        let mut sent = Sent::budabit();
        change(&mut sent);
        match sent.read() {
            Err(Rejection::Ignored(why)) => assert_eq!(why, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn attack_62_a_payment_is_refused_and_its_token_repeated_nowhere() {
    let mut sent = Sent::budabit();
    sent.job.push(list(&["payment", "cashuBtoken"]));
    let refusal = sent.refused();
    assert_eq!(refusal.reason, "this pool takes no payment, send the job without one");
    let log = FinalizedLog { url: format!("https://ci.example/{}", "a".repeat(64)), ..FinalizedLog::default() };
    let drafts = HiveCi.refuse(&refusal, Some(&log), 50, &sent.pool.public_key());
    assert_eq!(kinds(&drafts), [RESULT, RUN_RESULT, STATUS]);
    for draft in &drafts {
        assert!(!draft.event.as_json().contains("cashuB"));
        assert_eq!(values(draft, "change"), Vec::<String>::new());
    }
    assert_eq!(values(&drafts[0], "exit_code"), ["125"]);
    assert_eq!(values(&drafts[0], "duration"), ["0"]);
    assert_eq!(values(&drafts[1], "status"), ["failure"]);
    let signature = drafts[1].signature.unwrap();
    drafts[1].event.clone().add_signature(signature).unwrap().verify().unwrap();
    assert_eq!(kinds(&HiveCi.refuse(&refusal, None, 50, &sent.pool.public_key())), [RESULT, STATUS]);
}

#[test]
fn t17_without_a_publisher_the_run_goes_on_without_5402() {
    let mut sent = Sent::budabit();
    Sent::without(&mut sent.run, "publisher");
    let (request, secrets) = sent.taken();
    assert!(secrets.publisher.is_none());
    assert!(request.notices[0].contains("5402"));
    let drafts = report("run", &request, &ended(Conclusion::Success, None, 0), &sent.pool.public_key());
    assert_eq!(kinds(&drafts), [RESULT, STATUS]);
}

#[test]
fn t19_a_clock_that_is_off_is_refused() {
    for (at, refused) in [(60, false), (61, true), (7200, true), (-3600, false), (-4 * 24 * 3600, true)] {
        let mut sent = Sent::budabit();
        sent.at = (NOW / 1000).saturating_add_signed(at);
        assert_eq!(sent.read().is_err(), refused, "{at} s");
    }
}

#[test]
fn t23_reserved_names_are_ignored_with_a_notice_and_limits_hold() {
    let mut sent = Sent::budabit();
    for (name, value) in
        [("PATH", "x"), ("GITHUB_TOKEN", "x"), ("HIVE_CI_RUN_ID", "other"), ("a b", "x"), ("MODE", "fast")]
    {
        sent.job.push(list(&["env", name, value]));
    }
    let (request, _) = sent.taken();
    assert_eq!(request.env.iter().collect::<Vec<_>>(), [(&"MODE".to_owned(), &"fast".to_owned())]);
    assert_eq!(request.notices.len(), 4, "{:?}", request.notices);

    let mut many = Sent::budabit();
    many.job.extend((0..600).map(|n| list(&["env", &format!("N{n}"), "x"])));
    assert!(many.refused().reason.contains("at most 500"));
    many.job.extend((0..5000).map(|n| list(&["env", &format!("M{n}"), "x"])));
    assert!(many.refused().reason.contains("at most 2000"));
    let mut large = Sent::budabit();
    large.job.push(list(&["env", "BIG", &"x".repeat(70_000)]));
    assert!(large.refused().reason.contains("BIG has 70000 bytes"));
    large.job.push(list(&["env", "BIG", &"x".repeat(1 << 20)]));
    assert!(large.refused().reason.contains("this pool reads at most 524288"));
}

#[test]
fn t24_secrets_are_decrypted_by_name_and_never_printed() {
    let mut sent = Sent::budabit();
    sent.secret("TOKEN", "line one\nzweite Zeile ✓");
    sent.secret("RUNNER_TEMP", "x");
    let (request, secrets) = sent.taken();
    assert_eq!(secrets.values.len(), 1);
    assert_eq!(secrets.values[0].0, "TOKEN");
    assert_eq!(secrets.values[0].1.expose_secret(), "line one\nzweite Zeile ✓");
    assert!(!format!("{request:?}{secrets:?}").contains("line one"));
    assert!(!format!("{secrets:?}").contains(&sent.publisher.secret_key().to_secret_hex()));

    sent.job.push(list(&["secret", "BROKEN", "AAAA"]));
    assert!(sent.refused().reason.contains("BROKEN can't be decrypted"));
}

#[test]
fn a_run_that_names_something_wrong_is_refused_with_cause() {
    let cases: [(&[&str], &str); 5] = [
        (&["a", "30617:owner:x"], "names no repository"),
        (&["a", "1:2"], "names no repository"),
        (&["commit", "main; rm -rf /"], "no commit id"),
        (&["commit", "abc"], "no commit id"),
        (&["ref", "main"], "full name"),
    ];
    for (tag, text) in cases {
        let mut sent = Sent::budabit();
        Sent::set(&mut sent.run, tag);
        assert!(sent.refused().reason.contains(text), "{tag:?}: {}", sent.refused().reason);
        assert!(sent.refused().publisher.is_some(), "its 5402 can be signed");
    }
    let mut zero = Sent::budabit();
    zero.job.push(list(&["env", "X", "a\0b"]));
    assert!(zero.refused().reason.contains("U+0000"));
}

#[test]
fn attack_59_texts_of_a_run_that_lists_and_logs_show_have_a_length() {
    let owner = Sent::budabit().owner.public_key();
    for (tag, most, value) in [
        ("workflow", 512, "w".repeat(513)),
        ("branch", 512, "b".repeat(513)),
        ("ref", 512, format!("refs/heads/{}", "r".repeat(502))),
        ("trigger", 64, "t".repeat(65)),
        ("trigger", 64, "a\nb".to_owned()),
    ] {
        let mut sent = Sent::budabit();
        Sent::set(&mut sent.run, &[tag, &value]);
        let refusal = sent.refused();
        assert!(refusal.reason.contains(&format!("`{tag}` is longer than {most} bytes")), "{}", refusal.reason);
        assert!(refusal.workflow.len() <= 512);
    }
    let mut sent = Sent::budabit();
    Sent::set(&mut sent.run, &["a", &format!("30617:{owner}:{}", "i".repeat(257))]);
    assert!(sent.refused().reason.contains("`a` is longer than 256 bytes"));
}

#[test]
fn a_plain_loom_command_is_refused_with_what_to_do() {
    let mut sent = Sent::budabit();
    sent.job.retain(|tag| tag[0] != "e");
    let job = signed(JOB, &sent.job, &sent.author, sent.at);
    let limits = Limits::default();
    let context = ReadContext { keys: &sent.pool, limits: &limits, commands: false, now: NOW };
    let EventMeaning::Rejected(Rejection::Refused(refusal)) = HiveCi.read(&job, &context) else { panic!() };
    assert!(refusal.reason.contains("plain Loom commands (`bash`)") && refusal.reason.contains("5401"));
}

#[test]
fn a_plain_loom_command_is_read_where_the_operator_allows_it() {
    let (pool, author) = (Keys::generate(), Keys::generate());
    let sealed =
        |value: &str| nip44::encrypt(author.secret_key(), &pool.public_key(), value, nip44::Version::V2).unwrap();
    let tags = vec![
        list(&["p", &pool.public_key().to_hex()]),
        list(&["cmd", "sha256sum"]),
        list(&["args", "--tag", "-"]),
        list(&["env", "LANG", "C"]),
        list(&["env", "PATH", "/evil"]),
        list(&["secret", "KEY", &sealed("value")]),
        // Nothing that names a repository makes it that of one.
        list(&["a", &format!("30617:{}:my-repo", author.public_key())]),
    ];
    let event = |tags: &[Vec<String>]| {
        EventBuilder::new(Kind::from(JOB), "the input")
            .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
            .custom_created_at(Timestamp::from(NOW / 1000))
            .sign_with_keys(&author)
            .unwrap()
    };
    let limits = Limits::default();
    let context = ReadContext { keys: &pool, limits: &limits, commands: true, now: NOW };
    let job = event(&tags);
    assert!(matches!(HiveCi.read(&job, &context), EventMeaning::Request { partner: None }));
    assert_eq!(HiveCi.repository(&job, None).unwrap(), "", "only who may run whatever the repository is");
    let (request, secrets) = HiveCi.request(&job, None, &context).unwrap();
    let command = request.command.unwrap();
    assert_eq!((command.program.as_str(), command.input.as_str()), ("sha256sum", "the input"));
    assert_eq!(command.arguments, ["--tag", "-"]);
    assert_eq!((request.repository.address.as_str(), request.workflow.as_str()), ("", ""));
    assert_eq!(request.env.iter().collect::<Vec<_>>(), [(&"LANG".to_owned(), &"C".to_owned())]);
    assert!(request.notices[0].contains("PATH"), "{:?}", request.notices);
    assert_eq!(secrets.values[0].1.expose_secret(), "value");
    for (tag, why) in [(list(&["payment", "cashuA"]), "no payment"), (list(&["cmd", ""]), "`cmd` is empty")] {
        let tags: Vec<_> = [tag].into_iter().chain(tags.iter().cloned()).collect();
        let Err(Rejection::Refused(refusal)) = HiveCi.request(&event(&tags), None, &context) else { panic!("{why}") };
        assert!(refusal.reason.contains(why), "{}", refusal.reason);
    }
    let closed = ReadContext { commands: false, ..context };
    assert!(matches!(HiveCi.request(&job, None, &closed), Err(Rejection::Refused(_))));
}

#[test]
fn attack_18_nothing_but_jobs_and_cancels_is_listened_for() {
    let us = Keys::generate();
    let filters = HiveCi.filters(&us.public_key(), Timestamp::from(1));
    let kinds: Vec<u16> = filters.iter().flat_map(|f| f.kinds.iter().flatten()).map(|kind| kind.as_u16()).collect();
    assert_eq!(kinds, [JOB, CANCEL], "no comment is a command");
    assert!(filters.iter().all(|filter| filter.kinds.is_some()));
    assert_eq!(HiveCi.kinds(), [RUN, JOB, CANCEL]);
}

#[test]
fn attack_59_a_cancel_of_many_jobs_costs_no_more_than_one_of_few() {
    let (author, pool) = (Keys::generate(), Keys::generate());
    let limits = Limits::default();
    let context = ReadContext { keys: &pool, limits: &limits, commands: false, now: NOW };
    let read = |jobs: usize| {
        let mut tags = vec![list(&["p", &pool.public_key().to_hex()])];
        tags.extend((0..jobs).map(|number| list(&["e", &format!("{number:064x}")])));
        HiveCi.read(&signed(CANCEL, &tags, &author, 1), &context)
    };
    let EventMeaning::Cancel(few) = read(1000) else { panic!() };
    assert_eq!(few.len(), CANCELLED);
    assert!(matches!(read(50_000), EventMeaning::Rejected(Rejection::Ignored(Ignored::TooLong))));
}

#[test]
fn answers_to_many_requests_are_asked_for_by_what_every_relay_looks_up() {
    let us = Keys::generate();
    let requests = [EventId::all_zeros(), signed(JOB, &[], &us, 1).id];
    let filters = HiveCi.answer_filters(&us.public_key(), Some(&requests));
    for kind in [STATUS, RESULT] {
        for request in &requests {
            let answer = signed(kind, &[list(&["e", &request.to_hex()]), list(&["d", &request.to_hex()])], &us, 2);
            let matches = |filter: &Filter| filter.match_event(&answer, nostr::filter::MatchEventOptions::new());
            assert!(filters.iter().any(matches), "{kind}");
        }
    }
    let d = nostr::SingleLetterTag::lowercase(nostr::Alphabet::D);
    assert!(!filters.iter().any(|filter| filter.generic_tags.contains_key(&d)), "a relay may look at one `d` alone");
}

#[test]
fn a_cancel_names_jobs_and_must_be_ours() {
    let (author, pool, job) = (Keys::generate(), Keys::generate(), "ab".repeat(32));
    let limits = Limits::default();
    let context = ReadContext { keys: &pool, limits: &limits, commands: false, now: NOW };
    let p = list(&["p", &pool.public_key().to_hex()]);
    let cases = [
        (vec![list(&["e", &job]), p.clone()], 1),
        (vec![list(&["e", &job]), list(&["e", &"cd".repeat(32)]), p.clone()], 2),
        (vec![list(&["e", "zz"]), p], 0),
        (vec![list(&["e", &job])], 0),
    ];
    for (tags, expected) in cases {
        match HiveCi.read(&signed(CANCEL, &tags, &author, 1), &context) {
            EventMeaning::Cancel(jobs) => assert_eq!(jobs.len(), expected, "{tags:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_end_is_told_as_the_profile_says() {
    use Conclusion::{Cancelled, Failure, Skipped, Success};
    let sent = Sent::budabit();
    let (request, _) = sent.taken();
    let (job, run) = sent.pair();
    let us = sent.pool.public_key();
    let cases = [
        ("t01", Success, None, 0, ["true", "0", "success", "completed"]),
        ("all skipped", Skipped, None, 0, ["true", "0", "success", "completed"]),
        ("t02", Failure, Some(Reason::Step), 3, ["false", "3", "failure", "failed"]),
        (
            "t20, t21",
            Failure,
            Some(Reason::Invalid("ci.yml:3:1: no such key".into())),
            125,
            ["false", "125", "failure", "failed"],
        ),
        ("a failure is never 0", Failure, None, 0, ["false", "1", "failure", "failed"]),
        ("t28", Failure, Some(Reason::Timeout), 137, ["false", "124", "failure", "timeout"]),
        (
            "t29",
            Cancelled,
            Some(Reason::Cancelled("cancelled by its author".into())),
            143,
            ["false", "130", "cancelled", "cancelled"],
        ),
    ];
    for (name, conclusion, reason, code, [success, exit_code, run_status, status]) in cases {
        let drafts = report("run-7", &request, &ended(conclusion, reason.clone(), code), &us);
        assert_eq!(kinds(&drafts), [RESULT, RUN_RESULT, STATUS], "{name}: the order clients can read");
        let [result, run_result, terminal] = &drafts[..] else { panic!() };
        assert_eq!(values(result, "success"), [success], "{name}");
        assert_eq!(values(result, "exit_code"), [exit_code], "{name}");
        assert_eq!(values(run_result, "exit_code"), [exit_code], "{name}");
        assert_eq!(values(run_result, "status"), [run_status], "{name}");
        assert_eq!(values(terminal, "status"), [status], "{name}");
        assert_eq!(values(result, "error").len(), usize::from(reason.is_some()), "{name}");
        for draft in &drafts {
            assert_eq!(draft.event.content, "", "{name}");
            assert_eq!(values(draft, "e").len(), 1, "{name}");
            assert!(draft.event.id.is_some() && draft.event.verify_id().is_ok());
        }
        for draft in [result, terminal] {
            assert_eq!(values(draft, "e"), [job.id.to_hex()]);
            assert_eq!(values(draft, "p"), [sent.author.public_key().to_hex()]);
            assert_eq!((draft.event.pubkey, &draft.signer), (us, &Signer::Coordinator));
        }
        assert_eq!(values(terminal, "d"), [job.id.to_hex()]);
        assert_eq!(values(run_result, "e"), [run.id.to_hex()]);
        assert_eq!(values(run_result, "workflow"), [".github/workflows/ci.yml"]);
        assert_eq!(values(run_result, "log_url"), values(result, "stdout"));
        assert_eq!(run_result.event.pubkey, sent.publisher.public_key());
        assert_eq!(run_result.signer, Signer::Publisher { run: "run-7".into() });
    }
}

#[test]
fn t26_updates_within_a_second_carry_growing_stamps() {
    let sent = Sent::budabit();
    let (request, _) = sent.taken();
    let us = sent.pool.public_key();
    let mut finished = ended(Conclusion::Success, None, 0);
    if let RunUpdate::Finished { stamp, .. } = &mut finished {
        *stamp = 12;
    }
    let updates = [RunUpdate::Queued { stamp: 10 }, RunUpdate::Running { stamp: 11 }, finished];
    let drafts: Vec<Draft> = updates.iter().flat_map(|update| report("run", &request, update, &us)).collect();
    let stamps = |kind: u16| -> Vec<u64> {
        drafts.iter().filter(|d| d.event.kind.as_u16() == kind).map(|d| d.event.created_at.as_secs()).collect()
    };
    assert_eq!(stamps(STATUS), [10, 11, 12]);
    assert_eq!((stamps(RESULT), stamps(RUN_RESULT)), (vec![12], vec![12]));
}

#[test]
fn a_request_that_policy_refuses_is_answered_with_its_publisher_key() {
    let sent = Sent::budabit();
    let (request, secrets) = sent.taken();
    let refusal = Refusal::of_request(&request, &secrets, "not on the list").unwrap();
    assert_eq!(refusal.publisher.unwrap().public_key(), sent.publisher.public_key());
    let api = RunRequest { origin: RequestOrigin::Api, ..request };
    assert!(Refusal::of_request(&api, &secrets, "x").is_none());
}

#[test]
fn a_run_that_an_earlier_version_stored_is_answered_as_before() {
    let sent = Sent::budabit();
    let (request, _) = sent.taken();
    let origin = request.origin.nostr().unwrap();
    let stored = serde_json::json!({
        "kind": "hive_ci", "run_event": origin.run_event().id, "job_event": origin.request.id,
        "author": origin.author, "publisher": origin.publisher, "workflow": ".github/workflows/ci.yml",
        "relays": origin.relays,
    });
    assert_eq!(serde_json::from_value::<RequestOrigin>(stored).unwrap(), request.origin);
}
