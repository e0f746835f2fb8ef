//! NIP-C1 from outside: triggers, services and results, on a relay whose events strict readers judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use longshore_tests::{
    harness::{
        client::{kind, sign, sign_at, tag},
        pool::Dev,
        process::binary,
        world::World,
    },
    oracle::ngit,
};
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, Tag, Timestamp, nips::nip44};
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

    /// The same dated some seconds later, so that it is another event.
    async fn send_at(&self, by: &Keys, kind: u16, tags: Vec<Vec<String>>, later: u64) -> Event {
        let event = sign_at(by, kind, tags, Timestamp::now() + later).unwrap();
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

/// Says which token a job has: a hash of it, for the token itself is masked.
const TOKEN: &str = "name: CI\non: push\njobs:\n  tell:\n    runs-on: ubuntu-latest\n    steps:\n      - env:\n          TOKEN: ${{ secrets.TOKEN }}\n        run: echo \"hash-of-token $(printf %s \"$TOKEN\" | sha256sum | cut -c1-16)\"\n";

/// Secrets as a maintainer sends them.
struct Sender {
    by: Keys,
    address: String,
    /// The pool, its key for secrets, and the advertisement that names it.
    us: PublicKey,
    recipient: PublicKey,
    advertisement: Event,
}

impl Sender {
    fn update(&self, at: u64, set: &serde_json::Value, remove: &[&str]) -> Event {
        let text = serde_json::json!({
            "author": self.by.public_key().to_hex(), "created_at": at, "set": set, "remove": remove,
        });
        let once = Keys::generate();
        let sealed = nip44::encrypt(once.secret_key(), &self.recipient, text.to_string(), nip44::Version::V2).unwrap();
        let [us, sender, recipient] = [self.us, once.public_key(), self.recipient].map(|key| key.to_hex());
        let tags = [
            vec!["a", &self.address],
            vec!["p", &us],
            vec!["e", &self.advertisement.id.to_hex(), "", "secrets-key"],
            vec!["sender", &sender],
            vec!["recipient", &recipient],
            vec!["encryption", "nip44-v2"],
        ]
        .map(|tag| Tag::parse(tag).unwrap());
        let builder = EventBuilder::new(Kind::from(29846), sealed).tags(tags).custom_created_at(Timestamp::from(at));
        builder.sign_with_keys(&self.by).unwrap()
    }
}

#[tokio::test]
async fn t75_secrets_that_a_maintainer_sends_are_given_replaced_removed_and_do_not_come_back() {
    let mut stage = Stage::new().await;
    stage.commit = stage.world.push("token", &[(PATH, TOKEN)]).await.unwrap();
    let (owner, us) = (stage.world.owner.clone(), stage.dev.pubkey);
    stage.send(&owner, 9843, vec![vec!["a".into(), stage.world.address()], vec!["p".into(), us.to_hex()]]).await;
    let offers = |heard: &[Event]| !of(heard, 39844, &us).is_empty() && !of(heard, 19843, &us).is_empty();
    let advertisement = of(&stage.until(offers).await, 19843, &us).pop().unwrap();
    let named = advertisement.tags.iter().find(|tag| tag.as_slice()[0] == "secrets-key").unwrap().as_slice();
    assert_eq!((named[1].as_str(), named[3].as_str()), ("nip44-v2", stage.world.relay.as_str()));
    let recipient = PublicKey::from_hex(&named[2]).unwrap();
    let address = stage.world.address();
    let sender = Sender { by: owner.clone(), address, us, recipient, advertisement };
    let nothing = serde_json::json!({});
    let token = |value: &str| serde_json::json!({"TOKEN": value});
    let hash = |value: &str| hex::encode(Sha256::digest(value))[..16].to_owned();
    // What was sent before a mark is read once the mark is there.
    let sent = async |updates: Vec<Event>, mark: Event, name: &str| {
        for event in updates.iter().chain([&mark]) {
            stage.world.listener.publish(event).await.unwrap();
        }
        let until = Instant::now() + LIMIT;
        loop {
            let mut list = Command::new(binary("longshore").unwrap());
            list.args([
                "secret",
                "list",
                "--json",
                "--repository",
                &stage.world.address(),
                "--server",
                &stage.dev.http,
            ]);
            let listed = list.env("LONGSHORE_NSEC", owner.secret_key().to_secret_hex()).output().unwrap();
            if String::from_utf8_lossy(&listed.stdout).contains(&format!("\"{name}\"")) {
                return;
            }
            assert!(Instant::now() < until, "{listed:?}\n{}", stage.dev.process.text());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut ran = 0;
    let mut told = async || {
        let mut tags = stage.trigger();
        tags.retain(|tag| tag[0] != "w");
        tags.push(vec!["w".into(), PATH.into(), hex::encode(Sha256::digest(TOKEN))]);
        stage.send_at(&owner, 9840, tags, ran).await;
        ran += 1;
        let heard = stage.until(|heard| of(heard, 9841, &us).len() >= ran as usize).await;
        let said = of(&heard, 9841, &us).pop().unwrap().content;
        said.lines()
            .find_map(|line| line.split("hash-of-token ").nth(1).filter(|hash| hash.len() == 16))
            .unwrap_or(&said)
            .to_owned()
    };
    let at = Timestamp::now().as_secs();
    let stranger = Keys::generate();
    let foreign =
        Sender { by: stranger.clone(), address: format!("30617:{}:my-repo", stranger.public_key()), ..sender };
    let forged = foreign.update(at + 9, &token("of a stranger"), &[]);
    let sender = Sender { by: owner.clone(), address: stage.world.address(), ..foreign };
    sent(
        vec![sender.update(at, &token("first"), &[]), forged],
        sender.update(at, &serde_json::json!({"A": "first mark"}), &[]),
        "A",
    )
    .await;
    assert_eq!(told().await, hash("first"), "given");
    let late = sender.update(at + 2, &token("late"), &[]);
    sent(
        vec![sender.update(at + 1, &token("second"), &[])],
        sender.update(at, &serde_json::json!({"B": "second mark"}), &[]),
        "B",
    )
    .await;
    assert_eq!(told().await, hash("second"), "replaced");
    sent(
        vec![sender.update(at + 3, &nothing, &["TOKEN"]), late],
        sender.update(at, &serde_json::json!({"C": "third mark"}), &[]),
        "C",
    )
    .await;
    assert_eq!(told().await, hash(""), "removed, and what comes late does not bring it back");
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
