//! NIP-C1 from outside: triggers, services and results, on a relay whose events strict readers judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{process::Command, time::Duration};

use longshore_tests::{
    harness::{
        client::{kind, sign, sign_at, tag},
        pool::Dev,
        process::binary,
        world::World,
    },
    oracle::ngit,
};
use nostr::{Event, Keys, Kind, PublicKey, Timestamp};
use sha2::{Digest, Sha256};

const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = ".github/workflows/ci.yml";
/// Long enough that its progress is said before it ends.
const PASSES: &str = "name: CI\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: sleep 11; echo fine\n  after:\n    needs: build\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo after\n";

struct Stage {
    dev: Dev,
    world: World,
    commit: String,
    _data: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let dev = Dev::start(&data.path().join("data"), &[]).unwrap();
        let world = World::new(&dev.relay, &[]).await.unwrap();
        let commit = world.push("workflow", &[(PATH, PASSES)]).await.unwrap();
        Self { dev, world, commit, _data: data }
    }

    /// The tags of a trigger of the workflow at the newest commit.
    fn trigger(&self) -> Vec<Vec<String>> {
        let hash = hex::encode(Sha256::digest(PASSES));
        let tags = [
            vec!["p".to_owned(), self.dev.pubkey.to_hex()],
            vec!["a".into(), self.world.address(), self.world.relay.clone()],
            vec!["c".into(), self.commit.clone()],
            vec!["w".into(), PATH.into(), hash],
        ];
        tags.to_vec()
    }

    async fn send(&self, by: &Keys, kind: u16, tags: Vec<Vec<String>>) -> Event {
        let event = sign(by, kind, tags).unwrap();
        self.world.listener.publish(&event).await.unwrap();
        event
    }

    /// All that was heard once `found` says so of it.
    async fn until(&self, found: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
        let heard = self.world.listener.until(LIMIT, found).await;
        heard.unwrap_or_else(|error| panic!("{error:#}\n{}", self.dev.process.text()))
    }
}

/// Events of the coordinator of a kind.
fn of(heard: &[Event], kind: u16, by: &PublicKey) -> Vec<Event> {
    heard.iter().filter(|event| event.kind == Kind::from(kind) && event.pubkey == *by).cloned().collect()
}

/// Ids of runs whose end was said.
fn concluded(heard: &[Event]) -> Vec<String> {
    let ends = heard.iter().filter(|event| event.kind == Kind::from(39842) && tag(event, "status") == "concluded");
    ends.map(|event| tag(event, "d")).collect()
}

#[tokio::test]
async fn t71_a_maintainers_trigger_runs_one_workflow_and_every_job_of_it_is_reported() {
    let stage = Stage::new().await;
    let trigger = stage.send(&stage.world.owner, 9840, stage.trigger()).await;
    let heard = stage.until(|heard| !concluded(heard).is_empty()).await;
    let us = stage.dev.pubkey;
    let runs = concluded(&heard);
    let run = &runs[0];

    let shown = ngit::shown(&heard, &us, run, Timestamp::now().as_secs());
    let jobs = [("build", "success"), ("after", "success")].map(|(job, end)| (job.to_owned(), end.to_owned()));
    assert_eq!(shown, ngit::Shown { conclusion: Some("success".into()), jobs: jobs.to_vec(), spins: false });
    let results = of(&heard, 9842, &us);
    assert_eq!(results.len(), 1, "one result");
    let by = [trigger.id.to_hex(), trigger.pubkey.to_hex(), "manual-trigger".to_owned()];
    let progress = of(&heard, 39842, &us);
    for event in results.iter().chain(&progress) {
        assert_eq!(ngit::quotes(event).unwrap().request.as_ref(), Some(&by), "{event:?}");
        assert_eq!(tag(event, "o"), "manual");
        assert_eq!(tag(event, "c"), stage.commit);
    }
    let mut statuses: Vec<String> = progress.iter().map(|event| tag(event, "status")).collect();
    statuses.dedup();
    assert!(statuses.ends_with(&["in_progress".to_owned(), "concluded".into()]), "{statuses:?}");
    let of_jobs = of(&heard, 9841, &us);
    assert_eq!(of_jobs.len(), 2, "one for each job");
    for (event, text) in of_jobs.iter().zip(["fine", "after"]) {
        assert!(event.content.contains(text), "{event:?}");
        assert_eq!((tag(event, "attempt").as_str(), tag(event, "exit_code").as_str()), ("1", "0"));
        assert!(!tag(event, "runner").is_empty() && tag(event, "digest").contains("sha256:"), "{event:?}");
        let log = reqwest::get(tag(event, "logs")).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        assert!(log.contains(text), "{log}");
    }
    // From events and blobs alone: that it is what the maintainer asked for, and the logs are those of it.
    for of in [&results[0], &of_jobs[1], &trigger] {
        let mut verify = Command::new(binary("longshore").unwrap());
        let verified = verify.args(["verify", &of.id.to_hex(), "--relay", &stage.world.relay]).output().unwrap();
        let printed = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success() && printed.contains("the log of the job after"), "{printed}");
    }
    // Sent again it is the same trigger.
    stage.world.listener.publish(&trigger).await.unwrap();
    let press = stage.world.press(us, PATH);
    let (run, job) = stage.world.send(&press).await.unwrap();
    stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    let heard = stage.until(|_| true).await;
    assert_eq!(concluded(&heard).len(), 1, "and what is asked for in the other family alone is answered there alone");
    assert_eq!(of(&heard, kind::WORKFLOW_RESULT, &press.publisher.public_key()).len(), 1);
}

#[tokio::test]
async fn t72_a_trigger_that_must_not_run_is_answered_with_nothing() {
    let stage = Stage::new().await;
    let (owner, stranger) = (stage.world.owner.clone(), Keys::generate());
    let replaced = |name: &str, value: &[&str]| {
        let mut tags = stage.trigger();
        let place = tags.iter().position(|tag| tag[0] == name).unwrap();
        tags[place] = std::iter::once(name).chain(value.iter().copied()).map(str::to_owned).collect();
        tags
    };
    let unpublished = stage.world.repository.commit("not pushed", &[("file", "text")]).unwrap();
    for (by, tags) in [
        (&stranger, stage.trigger()),
        (&owner, replaced("w", &[PATH, &"0".repeat(64)])),
        (&owner, replaced("w", &[".github/workflows/other.yml", &"0".repeat(64)])),
        (&owner, replaced("p", &[&stranger.public_key().to_hex()])),
        (&owner, replaced("c", &[&unpublished])),
        (&owner, replaced("a", &[&format!("30617:{}:my-repo", stranger.public_key())])),
    ] {
        stage.send(by, 9840, tags).await;
    }
    let good = stage.send(&owner, 9840, stage.trigger()).await;
    let heard = stage.until(|heard| !concluded(heard).is_empty()).await;
    for event in [9841, 9842, 39842].into_iter().flat_map(|kind| of(&heard, kind, &stage.dev.pubkey)) {
        let request = ngit::quotes(&event).unwrap().request.unwrap();
        assert_eq!(request[0], good.id.to_hex(), "{event:?}");
    }
}

#[tokio::test]
async fn t77_of_a_repository_that_is_served_one_execution_is_told_of_in_both_families_until_a_maintainer_ends_it() {
    let stage = Stage::new().await;
    let (owner, stranger, us) = (stage.world.owner.clone(), Keys::generate(), stage.dev.pubkey);
    let wish = [vec!["a".to_owned(), stage.world.address()], vec!["p".into(), us.to_hex()]];
    stage.send(&stranger, 9843, wish.to_vec()).await;
    let request = stage.send(&owner, 9843, wish.to_vec()).await;
    let offered = [19843, 19844, 39844];
    let heard = stage.until(|heard| offered.iter().all(|kind| !of(heard, *kind, &us).is_empty())).await;
    let status = of(&heard, 39844, &us).remove(0);
    assert_eq!(tag(&status, "d"), stage.world.address());
    assert!(of(&heard, 39844, &us).iter().all(|event| tag(event, "d") == tag(&status, "d")), "one repository");

    let press = stage.world.press(us, PATH);
    let (run, job) = stage.world.send(&press).await.unwrap();
    let answers = stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    let heard = stage.until(|heard| !concluded(heard).is_empty()).await;
    assert_eq!(tag(answers.only(kind::WORKFLOW_RESULT).unwrap(), "status"), "success");
    let results = of(&heard, 9842, &us);
    assert_eq!((results.len(), tag(&results[0], "conclusion").as_str()), (1, "success"));
    assert_eq!(ngit::quotes(&results[0]).unwrap().request, None, "no request of this family started it");
    assert_eq!(of(&heard, kind::RESULT, &us).len(), 1, "one execution");

    // A stop that is no later than the request ends nothing; the next one does.
    let at = Timestamp::from(request.created_at.as_secs() + 1);
    let stop = sign_at(&owner, 9844, wish.to_vec(), at).unwrap();
    stage.send(&stranger, 9844, wish.to_vec()).await;
    stage.world.listener.publish(&stop).await.unwrap();
    let gone = format!("39844:{us}:{}", stage.world.address());
    let heard = stage.until(|heard| of(heard, 5, &us).iter().any(|event| tag(event, "a") == gone)).await;
    let last = of(&heard, 39844, &us).pop().unwrap();
    let withdrawn = of(&heard, 5, &us).remove(0);
    assert_eq!(tag(&withdrawn, "e"), last.id.to_hex());
    let (run, job) = stage.world.send(&stage.world.press(us, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, LIMIT).await.unwrap();
    let heard = stage.until(|_| true).await;
    assert_eq!(of(&heard, 9842, &us).len(), 1, "and none of the run after it");
}
