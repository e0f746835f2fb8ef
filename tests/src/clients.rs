//! `make clients`: the real `ngit` and `ngit-grasp` against a pool, as people use them. One line for each thing that holds.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nostr::{Event, Kind, PublicKey, ToBech32};
use serde_json::Value;

use crate::{
    harness::{
        client::{Listener, tag},
        pool::Dev,
        process::binary,
    },
    oracle::{ngit, value, values},
};

use self::{
    grasp_server::GraspServer,
    person::{Person, Printed},
    programs::Programs,
};

mod grasp_server;
mod person;
pub mod programs;

/// Lines of each program's log that are shown where something does not hold.
const LAST_LINES: usize = 15;
/// How long a run may take until its end was published.
const LIMIT: Duration = Duration::from_secs(120);
const IDENTIFIER: &str = "lighthouse";
const CI: &str = ".ngit/act/workflows/ci.yml";
const NIGHTLY: &str = ".ngit/act/workflows/nightly.yml";

/// Two jobs, one of which needs the other; it fails where the tree says so.
const CI_FILE: &str = "name: CI\non: [push, pull_request]\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          echo \"building $NGIT_CI_WORKFLOW_PATH for $NGIT_CI_TRIGGER\"\n          test ! -e slow || sleep 5\n          test ! -e broken || { echo 'the lamp is broken'; exit 3; }\n  check:\n    needs: build\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo checked\n";
const NIGHTLY_FILE: &str = "name: Nightly\non:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  long:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo \"a long check of $GITHUB_SHA\"\n";

/// Everything that runs, and whose repository it is.
struct Stage {
    folder: PathBuf,
    programs: Programs,
    maintainer: Person,
    work: PathBuf,
    /// The pool, and what is heard on the repository's relay and on the pool's.
    pool: Dev,
    at_repository: Listener,
    at_pool: Listener,
    grasp: GraspServer,
    owner: PublicKey,
}

/// Goes through all of it in a folder.
///
/// # Errors
/// The first thing that does not hold, with what the programs printed.
pub async fn run(programs: &Programs, sandbox: &str, folder: &Path, mut say: impl FnMut(&str)) -> Result<()> {
    let mut steps = Steps { since: Instant::now(), say: &mut say };
    let stage = steps.take("ngit-grasp and a pool run", Stage::start(programs, sandbox, folder)).await?;
    let ended = stage.walk(&mut steps).await;
    if ended.is_err() {
        for (program, text) in [("ngit-grasp", stage.grasp.process.text()), ("the pool", stage.pool.process.text())] {
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
            say(&format!("\nlast lines of {program}:\n{}", last.join("\n")));
        }
    }
    ended
}

struct Steps<'a> {
    since: Instant,
    say: &'a mut dyn FnMut(&str),
}

impl Steps<'_> {
    /// Says what holds once it does.
    async fn take<T>(&mut self, what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let done = step.await.with_context(|| format!("failed: {what}"))?;
        (self.say)(&format!("ok {:>6.1} s  {what}", self.since.elapsed().as_secs_f32()));
        self.since = Instant::now();
        Ok(done)
    }
}

impl Stage {
    async fn start(programs: &Programs, sandbox: &str, folder: &Path) -> Result<Self> {
        let grasp = GraspServer::start(programs, folder).await?;
        let pool = Dev::start(&folder.join("pool"), &["--sandbox", sandbox])?;
        let at_repository = Listener::connect(std::slice::from_ref(&grasp.relay)).await?;
        let at_pool = Listener::connect(std::slice::from_ref(&pool.relay)).await?;
        let maintainer = Person::new("maintainer", folder, programs, &pool.relay, &grasp.http)?;
        let work = maintainer.folder("work");
        maintainer.git(&maintainer.folder(""), &["init", "--quiet", "work"]).await?;
        let owner = maintainer.account(&work, "Maintainer").await?;
        Ok(Self {
            folder: folder.to_owned(),
            programs: programs.clone(),
            maintainer,
            work,
            pool,
            at_repository,
            at_pool,
            grasp,
            owner,
        })
    }

    async fn walk(&self, steps: &mut Steps<'_>) -> Result<()> {
        steps.take("ngit init announces the repository and pushes it", self.init()).await?;
        steps.take("ngit ci request has it served: 19843, 19844 and 39844 say so", self.request()).await?;
        let files = [("light.txt", "on\n")];
        let pushed =
            steps.take("git push starts the workflow, which quotes the request", self.push("on", &files)).await?;
        steps
            .take(
                "ngit ci status shows it maintainer-directed, with its jobs; --require-ci-trust passes",
                self.status(&pushed),
            )
            .await?;
        steps.take("longshore verify proves it from events and logs alone", self.verified(&pushed, "push")).await?;
        steps
            .take("ngit ci status shows a failure with the end of its log; --require-ci-trust refuses", self.failure())
            .await?;
        steps.take("a pushed tag runs, and ngit ci status finds it by its name", self.tagged()).await?;
        steps.take("ngit ci status shows a run that has not ended as running", self.running()).await?;
        let second =
            steps.take("ngit repo accept: what the second maintainer pushes runs", self.second_maintainer()).await?;
        steps.take("ngit repo leave: what they ask for is not run any more", self.left(&second)).await?;
        steps.take("a forced push runs, a deleted branch does not", self.forced()).await?;
        let stranger = steps.take("a stranger clones the repository", self.stranger()).await?;
        let good = self.pull_request(&stranger, "pr/brighter", ("brighter.txt", "yes"));
        let good = steps.take("git push of pr/…: its run waits, and ngit pr merge refuses that", good).await?;
        steps
            .take("longshore approve: it runs, and ngit pr merge --require-ci-trust passes", self.merged(&good))
            .await?;
        let bad = self.pull_request(&stranger, "pr/darker", ("broken", ""));
        let bad = steps.take("another pull request waits for an approval of its own", bad).await?;
        steps.take("it fails, and ngit pr merge --require-ci-trust refuses it", self.not_merged(&bad)).await?;
        steps.take("ngit ci trigger runs one workflow at a commit, and no other", self.trigger(&pushed)).await?;
        steps.take("ngit ci stop ends it: 39844 is deleted, a push starts nothing", self.stop()).await
    }

    fn address(&self) -> String {
        format!("30617:{}:{IDENTIFIER}", self.owner)
    }

    fn pool_key(&self) -> Result<String> {
        Ok(self.pool.pubkey.to_bech32()?)
    }

    async fn init(&self) -> Result<()> {
        self.maintainer.commit(&self.work, "first", &[(CI, CI_FILE), (NIGHTLY, NIGHTLY_FILE)]).await?;
        let arguments =
            ["init", "--name", IDENTIFIER, "--identifier", IDENTIFIER, "--grasp-server", &self.grasp.http, "-d"];
        self.maintainer.ngit(&self.work, &arguments).await?;
        let remote = self.maintainer.git(&self.work, &["remote", "get-url", "origin"]).await?;
        ensure!(remote.starts_with("nostr://"), "origin is {remote}");
        let served = self.maintainer.git(&self.work, &["ls-remote", "origin", "refs/heads/main"]).await?;
        let head = self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await?;
        ensure!(served.starts_with(&head), "origin has {served}, and not {head}");
        Ok(())
    }

    async fn request(&self) -> Result<()> {
        self.maintainer.ngit(&self.work, &["ci", "request", &self.pool_key()?]).await?;
        let address = self.address();
        let offers = |heard: &[Event]| [19843, 19844].iter().all(|kind| self.ours(heard, *kind).next().is_some());
        self.at_pool.until(LIMIT, offers).await.context("at the pool's relay")?;
        let serves = |heard: &[Event]| self.ours(heard, 39844).any(|event| tag(event, "d") == address);
        self.at_repository.until(LIMIT, serves).await.context("at the repository's relay")?;
        Ok(())
    }

    /// Commits, pushes, and waits for the end of the one run.
    async fn push(&self, message: &str, files: &[(&str, &str)]) -> Result<String> {
        let commit = self.maintainer.commit(&self.work, message, files).await?;
        self.maintainer.git(&self.work, &["push", "origin", "HEAD"]).await?;
        let result = self.result(&commit, "push").await?;
        let quoted = ngit::quotes(&result).map_err(anyhow::Error::msg)?;
        let request = quoted.request.context("no request is quoted")?;
        ensure!(request[1] == self.owner.to_hex() && request[2] == "service-request", "it quotes {request:?}");
        Ok(commit)
    }

    /// The result of the only run of a commit that was started so.
    async fn result(&self, commit: &str, started_by: &str) -> Result<Event> {
        let is_it = |event: &Event| values(event, "c").contains(&commit) && tag(event, "o") == started_by;
        let heard = self.at_repository.until(LIMIT, |heard| self.ours(heard, 9842).any(is_it)).await?;
        let found: Vec<&Event> = self.ours(&heard, 9842).filter(|event| is_it(event)).collect();
        let [only] = found[..] else { anyhow::bail!("{} runs of one commit: {found:?}", found.len()) };
        Ok(only.clone())
    }

    /// What `ngit ci status` says of a target: whether it was content, and the document.
    async fn ci_status(&self, target: &str, more: &[&str]) -> Result<(bool, Value)> {
        let arguments: Vec<&str> = ["ci", "status", target].into_iter().chain(more.iter().copied()).collect();
        let (content, document) = self.maintainer.ngit_json(&self.work, &arguments).await?;
        ensure!(document["ci"]["skipped"].is_null(), "ngit drops events: {document:#}");
        Ok((content, document))
    }

    async fn status(&self, commit: &str) -> Result<()> {
        let (content, document) =
            self.ci_status(commit, &["--require-ci-trust", "maintainer-directed", "--log-tail", "all"]).await?;
        let shown = Shown::of(&document)?;
        ensure!(content, "--require-ci-trust refuses: {document:#}");
        let jobs = [("build", "success"), ("check", "success")];
        shown
            .is("concluded", Some("success"), "maintainer-directed", &jobs)
            .with_context(|| format!("{document:#}"))?;
        let run = &document["ci"]["runs"][0];
        ensure!(run["workflow"] == CI && run["integrity"]["workflow_hash_matches"] == true, "{run:#}");
        let job = &run["jobs"][0];
        let tail = job["log_tail"].as_str().unwrap_or_default();
        ensure!(tail.contains(&format!("building {CI} for push")), "the log's end is {tail:?}");
        let logs = job["logs"].as_str().context("a job names no log")?;
        let log = reqwest::get(logs).await?.error_for_status()?.text().await?;
        ensure!(log.contains("building"), "the log is {log:?}");
        Ok(())
    }

    async fn verified(&self, commit: &str, started_by: &str) -> Result<()> {
        let result = self.result(commit, started_by).await?.id.to_hex();
        let program = binary("longshore")?;
        let arguments = ["verify", &result, "--relay", &self.grasp.relay];
        let printed = self.maintainer.run(&self.work, &program.to_string_lossy(), &arguments).await?.success()?;
        ensure!(printed.contains("the log of the job check"), "it is not said of all logs: {printed}");
        Ok(())
    }

    async fn failure(&self) -> Result<()> {
        self.maintainer.git(&self.work, &["checkout", "--quiet", "-b", "broken"]).await?;
        let commit = self.push("broken", &[("broken", "")]).await?;
        self.maintainer.git(&self.work, &["checkout", "--quiet", "main"]).await?;
        let (content, document) = self.ci_status(&commit, &["--require-ci-trust", "maintainer-directed"]).await?;
        ensure!(!content, "--require-ci-trust passes: {document:#}");
        let shown = Shown::of(&document)?;
        shown
            .is("concluded", Some("failure"), "maintainer-directed", &[("build", "failure")])
            .with_context(|| format!("{document:#}"))?;
        let tail = &document["ci"]["runs"][0]["jobs"][0]["log_tail"];
        ensure!(tail.as_str().unwrap_or_default().contains("the lamp is broken"), "the log's end is {tail}");
        Ok(())
    }

    async fn tagged(&self) -> Result<()> {
        let commit = self.maintainer.commit(&self.work, "release", &[]).await?;
        self.maintainer.git(&self.work, &["tag", "--annotate", "--message", "first", "v1"]).await?;
        self.maintainer.git(&self.work, &["push", "origin", "v1"]).await?;
        let result = self.result(&commit, "push").await?;
        let named = values(&result, "r");
        ensure!(named.contains(&"refs/tags/v1"), "its `r` are {named:?}");
        let (_, document) = self.ci_status("v1", &[]).await?;
        let jobs = [("build", "success"), ("check", "success")];
        Shown::of(&document)?
            .is("concluded", Some("success"), "maintainer-directed", &jobs)
            .with_context(|| format!("{document:#}"))
    }

    async fn running(&self) -> Result<()> {
        let commit = self.maintainer.commit(&self.work, "slow", &[("slow", "")]).await?;
        self.maintainer.git(&self.work, &["push", "origin", "HEAD"]).await?;
        let runs =
            |event: &Event| values(event, "c").contains(&commit.as_str()) && tag(event, "status") == "in_progress";
        self.at_repository.until(LIMIT, |heard| self.ours(heard, 39842).any(runs)).await?;
        let (_, document) = self.ci_status(&commit, &[]).await?;
        Shown::of(&document)?
            .is("running", None, "maintainer-directed", &[])
            .with_context(|| format!("{document:#}"))?;
        self.result(&commit, "push").await?;
        self.maintainer.git(&self.work, &["rm", "--quiet", "slow"]).await?;
        self.maintainer.commit(&self.work, "quick again", &[]).await?;
        self.maintainer.git(&self.work, &["push", "origin", "HEAD"]).await?;
        Ok(())
    }

    /// Somebody else clones the repository, is invited, accepts, and pushes.
    async fn second_maintainer(&self) -> Result<Person> {
        let second = Person::new("second", &self.folder, &self.programs, &self.pool.relay, &self.grasp.http)?;
        let remote = self.maintainer.git(&self.work, &["remote", "get-url", "origin"]).await?;
        second.git(&second.folder(""), &["clone", "--quiet", &remote, "work"]).await?;
        let work = second.folder("work");
        let key = second.account(&work, "Second").await?;
        let (own, theirs) = (self.owner.to_bech32()?, key.to_bech32()?);
        let invite = ["repo", "edit", "--add-maintainer", &theirs, "--lead-maintainer", &own];
        self.maintainer.ngit(&self.work, &invite).await?;
        second.ngit(&work, &["repo", "accept"]).await?;
        // The states of two maintainers within one second are a draw: people push later than that.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let commit = second.commit(&work, "by the second", &[("second.txt", "was here")]).await?;
        second.git(&work, &["push", "origin", "HEAD"]).await?;
        let result = self.result(&commit, "push").await?;
        let announced: Vec<&str> = values(&result, "a");
        ensure!(announced.iter().any(|address| address.contains(&key.to_hex())), "its `a` are {announced:?}");
        self.pull(&commit).await?;
        let (_, document) = self.ci_status(&commit, &[]).await?;
        let jobs = [("build", "success"), ("check", "success")];
        Shown::of(&document)?
            .is("concluded", Some("success"), "maintainer-directed", &jobs)
            .with_context(|| format!("{document:#}"))?;
        Ok(second)
    }

    /// Until ngit has learned of a new maintainer, it takes the branch for up to date: it looks again after some seconds.
    async fn pull(&self, commit: &str) -> Result<()> {
        for _ in 0..20 {
            self.maintainer.git(&self.work, &["pull", "--quiet", "--ff-only", "origin", "main"]).await?;
            if self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await? == commit {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let (_, repository) = self.maintainer.ngit_json(&self.work, &["repo"]).await?;
        anyhow::bail!("the maintainer's git pull does not bring {commit}; ngit knows of {repository:#}")
    }

    async fn left(&self, second: &Person) -> Result<()> {
        let (work, pool) = (second.folder("work"), self.pool_key()?);
        second.ngit(&work, &["repo", "leave"]).await?;
        // Their states count no more either: the branch is where the maintainer says.
        let head = self.push("without the second", &[]).await?;
        second.git(&work, &["pull", "--quiet", "--ff-only", "origin", "main"]).await?;
        second.ngit(&work, &["ci", "trigger", &pool, &head, "--workflow", NIGHTLY]).await?;
        // What the maintainer asks for after that is run after it.
        self.maintainer.ngit(&self.work, &["ci", "trigger", &pool, &head, "--workflow", NIGHTLY]).await?;
        let result = self.result(&head, "manual").await?;
        let quoted = ngit::quotes(&result).map_err(anyhow::Error::msg)?.request.context("no request is quoted")?;
        ensure!(quoted[1] == self.owner.to_hex(), "it was run for {}", quoted[1]);
        Ok(())
    }

    async fn forced(&self) -> Result<()> {
        self.maintainer.git(&self.work, &["push", "origin", "--delete", "broken"]).await?;
        self.maintainer.git(&self.work, &["checkout", "--quiet", "-B", "topic"]).await?;
        self.push("topic", &[("topic.txt", "one")]).await?;
        self.maintainer.git(&self.work, &["commit", "--quiet", "--amend", "--message", "another"]).await?;
        let commit = self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await?;
        self.maintainer.git(&self.work, &["push", "--force", "origin", "HEAD"]).await?;
        let result = self.result(&commit, "push").await?;
        ensure!(values(&result, "r").contains(&"refs/heads/topic"), "{result:?}");
        self.maintainer.git(&self.work, &["checkout", "--quiet", "main"]).await?;
        Ok(())
    }

    async fn stranger(&self) -> Result<Person> {
        let stranger = Person::new("stranger", &self.folder, &self.programs, &self.pool.relay, &self.grasp.http)?;
        let remote = self.maintainer.git(&self.work, &["remote", "get-url", "origin"]).await?;
        stranger.git(&stranger.folder(""), &["clone", "--quiet", &remote, "work"]).await?;
        stranger.account(&stranger.folder("work"), "Stranger").await?;
        Ok(stranger)
    }

    /// A pull request with one file, as its run waits.
    async fn pull_request(&self, stranger: &Person, branch: &str, file: (&str, &str)) -> Result<PullRequest> {
        let work = stranger.folder("work");
        stranger.git(&work, &["checkout", "--quiet", "-b", branch, "main"]).await?;
        let head = stranger.commit(&work, branch, &[file]).await?;
        let title = format!("title=Make it {branch}");
        stranger.git(&work, &["push", "-o", &title, "-o", "description=please", "-u", "origin", branch]).await?;
        let waits = |event: &Event| values(event, "c").contains(&head.as_str()) && tag(event, "status") == "queued";
        let heard = self.at_repository.until(LIMIT, |heard| self.ours(heard, 39842).any(waits)).await?;
        let progress = self.ours(&heard, 39842).find(|event| waits(event)).context("it was heard")?;
        let (root, run) = (tag(progress, "E"), tag(progress, "d"));
        ensure!(tag(progress, "o") == "pull_request" && tag(progress, "alt").contains("approv"), "{progress:?}");
        self.merge(&root).await?.refusal("CI has not concluded")?;
        Ok(PullRequest { root, head, run })
    }

    /// `ngit pr merge` of a pull request whose result the maintainer has to trust.
    async fn merge(&self, root: &str) -> Result<Printed> {
        let arguments = ["pr", "merge", root, "--require-ci-trust", "maintainer-directed"];
        self.maintainer.run(&self.work, "ngit", &arguments).await
    }

    /// The maintainer approves its run; gives what `ngit ci status` says of it at its end.
    async fn approved(&self, request: &PullRequest) -> Result<Value> {
        let program = binary("longshore")?.to_string_lossy().into_owned();
        let key = self.maintainer.git(&self.work, &["config", "nostr.nsec"]).await?;
        let key_file = self.folder.join("maintainer.nsec");
        std::fs::write(&key_file, key)?;
        let arguments =
            ["approve", &request.run, "--server", &self.pool.http, "--key-file", &key_file.to_string_lossy()];
        self.maintainer.run(&self.work, &program, &arguments).await?.success()?;
        self.result(&request.head, "pull_request").await?;
        Ok(self.ci_status(&request.root, &[]).await?.1)
    }

    async fn merged(&self, request: &PullRequest) -> Result<()> {
        let document = self.approved(request).await?;
        let jobs = [("build", "success"), ("check", "success")];
        let shown = Shown::of(&document)?;
        shown
            .is("concluded", Some("success"), "maintainer-directed", &jobs)
            .with_context(|| format!("{document:#}"))?;
        self.verified(&request.head, "pull_request").await?;
        self.merge(&request.root).await?.success()?;
        let merged = self.maintainer.git(&self.work, &["rev-parse", "HEAD^2"]).await?;
        ensure!(merged == request.head, "{merged} was merged, and not {}", request.head);
        self.maintainer.git(&self.work, &["push", "origin", "HEAD"]).await?;
        let head = self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await?;
        self.result(&head, "push").await.map(drop)
    }

    async fn not_merged(&self, request: &PullRequest) -> Result<()> {
        let document = self.approved(request).await?;
        let shown = Shown::of(&document)?;
        let jobs = [("build", "failure")];
        shown
            .is("concluded", Some("failure"), "maintainer-directed", &jobs)
            .with_context(|| format!("{document:#}"))?;
        let before = self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await?;
        self.merge(&request.root).await?.refusal("CI concluded failure")?;
        let after = self.maintainer.git(&self.work, &["rev-parse", "HEAD"]).await?;
        ensure!(before == after, "it was merged all the same");
        Ok(())
    }

    async fn trigger(&self, commit: &str) -> Result<()> {
        let pool = self.pool_key()?;
        self.maintainer.ngit(&self.work, &["ci", "trigger", &pool, commit, "--workflow", NIGHTLY]).await?;
        let result = self.result(commit, "manual").await?;
        let quoted = ngit::quotes(&result).map_err(anyhow::Error::msg)?;
        ensure!(quoted.request.as_ref().is_some_and(|[.., marker]| marker == "manual-trigger"), "it quotes {quoted:?}");
        let (_, document) = self.ci_status(commit, &["--require-ci-trust", "maintainer-directed"]).await?;
        let runs = document["ci"]["runs"].as_array().context("there are runs")?;
        let mut shown: Vec<&str> = runs.iter().filter_map(|run| run["workflow"].as_str()).collect();
        shown.sort_unstable();
        ensure!(shown == [CI, NIGHTLY], "ngit shows {shown:?}: {document:#}");
        ensure!(document["command_status"] == "ok", "{document:#}");
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        let pool = self.pool_key()?;
        self.maintainer.ngit(&self.work, &["ci", "stop", &pool]).await?;
        let gone = format!("39844:{}:{}", self.pool.pubkey, self.address());
        let withdrawn = |heard: &[Event]| self.ours(heard, 5).any(|event| value(event, "a") == Some(&gone));
        self.at_repository.until(LIMIT, withdrawn).await?;
        let commit = self.maintainer.commit(&self.work, "after", &[]).await?;
        self.maintainer.git(&self.work, &["push", "origin", "HEAD"]).await?;
        // What was pushed before a trigger would have been run before it.
        self.maintainer.ngit(&self.work, &["ci", "trigger", &pool, &commit, "--workflow", NIGHTLY]).await?;
        self.result(&commit, "manual").await?;
        let (_, document) = self.ci_status(&commit, &[]).await?;
        let runs = document["ci"]["runs"].as_array().map(Vec::len);
        ensure!(runs == Some(1), "a push was run after the stop: {document:#}");
        Ok(())
    }

    /// Events of the pool of a kind.
    fn ours<'a>(&self, heard: &'a [Event], kind: u16) -> impl Iterator<Item = &'a Event> {
        let pool = self.pool.pubkey;
        heard.iter().filter(move |event| event.kind == Kind::from(kind) && event.pubkey == pool)
    }
}

/// A pull request, and its run.
struct PullRequest {
    root: String,
    head: String,
    run: String,
}

/// What `ngit ci status` shows of a target with one run.
#[derive(Debug)]
struct Shown {
    state: String,
    conclusion: Option<String>,
    classification: String,
    jobs: Vec<(String, String)>,
}

impl Shown {
    fn of(document: &Value) -> Result<Self> {
        let ci = &document["ci"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let runs = ci["runs"].as_array().filter(|runs| runs.len() == 1);
        let run = &runs.with_context(|| format!("ngit shows none or several runs: {document:#}"))?[0];
        let jobs = run["jobs"].as_array().into_iter().flatten();
        let jobs = jobs.filter_map(|job| Some((text(&job["job"])?, text(&job["conclusion"])?)));
        Ok(Self {
            state: text(&ci["state"]).unwrap_or_default(),
            conclusion: text(&ci["conclusion"]),
            classification: text(&run["classification"]).unwrap_or_default(),
            jobs: jobs.collect(),
        })
    }

    fn is(&self, state: &str, conclusion: Option<&str>, classification: &str, jobs: &[(&str, &str)]) -> Result<()> {
        let wanted: Vec<_> = jobs.iter().map(|(job, end)| ((*job).to_owned(), (*end).to_owned())).collect();
        let holds = self.state == state
            && self.conclusion.as_deref() == conclusion
            && self.classification == classification
            && self.jobs == wanted;
        ensure!(holds, "ngit shows {self:?}");
        Ok(())
    }
}
