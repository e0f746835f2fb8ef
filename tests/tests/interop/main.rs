//! Interop: what clients send is understood, what they read is there. Cases are numbered as in the table of interop
//! cases that the team keeps; each test's name begins with the number of its case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod calls;
mod ending;
mod intake;
mod javascript_actions;
mod kept;
mod logs;
mod repository;
mod rerun;
mod stored_values;

use std::time::Duration;

use longshore_tests::harness::{
    client::{Answers, Press, kind, tag},
    engine,
    pool::Dev,
    world::World,
};
use nostr::{Event, Kind};

/// Long enough for a few containers on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = ".github/workflows/ci.yml";
const PASSES: &str =
    "name: CI\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo fine\n";

/// `longshore dev` and a repository on its relay.
struct Stage {
    dev: Dev,
    world: World,
    _data: tempfile::TempDir,
}

/// One run's events.
struct Run {
    run: Event,
    job: Event,
    answers: Answers,
    press: Press,
}

impl Stage {
    /// With one workflow at [`PATH`].
    async fn with(workflow: &str) -> Self {
        Self::with_files(&[(PATH, workflow)], &[]).await
    }

    async fn with_files(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let dev = Dev::start(&data.path().join("data"), arguments).unwrap();
        let world = World::new(&dev.relay, files).await.unwrap();
        Self { dev, world, _data: data }
    }

    /// The owner's press of the workflow at [`PATH`].
    fn press(&self) -> Press {
        self.world.press(self.dev.pubkey, PATH)
    }

    /// Sends a press and waits for its end.
    async fn run(&self, press: Press) -> Run {
        let (run, job) = self.world.send(&press).await.unwrap();
        self.ended(press, run, job).await
    }

    async fn ended(&self, press: Press, run: Event, job: Event) -> Run {
        let answers = self.world.listener.end(&run, &job, LIMIT).await;
        let answers = answers.unwrap_or_else(|error| panic!("{error:#}\n{}", self.dev.process.text()));
        Run { run, job, answers, press }
    }

    /// Nothing is published about a job within a moment that is long enough for another job to end.
    async fn nothing_about(&self, run: &Event, job: &Event) {
        self.run(self.press()).await.assert_normal_end("completed");
        assert!(self.world.listener.answers(run, job).is_empty());
    }
}

impl Run {
    /// The kinds in their order, one of each, all signed, addressed and empty as readers need them.
    fn assert_normal_end(&self, last: &str) {
        let statuses = ["queued", "running", last];
        assert_eq!(self.answers.statuses(), statuses, "{:?}", self.error());
        assert_eq!(self.answers.kinds(), [30100, 30100, 5101, 5402, 30100]);
        self.assert_well_formed();
    }

    /// What holds for every answer, a refusal included.
    fn assert_well_formed(&self) {
        let job = self.job.id.to_hex();
        for event in &self.answers.0 {
            event.verify().unwrap();
            assert_eq!(event.content, "");
            let named: Vec<_> = event.tags.iter().filter(|tag| tag.as_slice()[0] == "e").collect();
            assert_eq!(named.len(), 1, "exactly one e tag: {event:?}");
            if event.kind == Kind::from(kind::WORKFLOW_RESULT) {
                assert_eq!(tag(event, "e"), self.run.id.to_hex());
                assert_eq!(event.pubkey, self.press.publisher.public_key());
            } else {
                assert_eq!(tag(event, "e"), job);
                assert_eq!(tag(event, "p"), self.press.author.public_key().to_hex());
                assert_eq!(event.pubkey, self.press.worker);
            }
        }
        for status in self.answers.of(kind::STATUS) {
            assert_eq!(tag(status, "d"), job);
        }
        let stamps: Vec<_> = self.answers.of(kind::STATUS).iter().map(|event| event.created_at).collect();
        assert!(stamps.is_sorted_by(|a, b| a < b), "status stamps grow: {stamps:?}");
    }

    fn result(&self) -> &Event {
        self.answers.only(kind::RESULT).unwrap()
    }

    fn workflow_result(&self) -> &Event {
        self.answers.only(kind::WORKFLOW_RESULT).unwrap()
    }

    fn error(&self) -> String {
        self.answers.of(kind::RESULT).first().map(|event| tag(event, "error")).unwrap_or_default()
    }

    /// The log that the web client would fetch; its hash is checked.
    async fn log(&self) -> String {
        let url = tag(self.workflow_result(), "log_url");
        let named = url.rsplit('/').next().unwrap().to_owned();
        let response = reqwest::get(&url).await.unwrap().error_for_status().unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "browsers fetch it");
        let bytes = response.bytes().await.unwrap();
        assert!(bytes.len() < 1_048_576, "{} bytes", bytes.len());
        assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)), named);
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

/// Skips a test where there is no engine and that is allowed.
macro_rules! needs_engine {
    () => {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        if !longshore_tests::harness::engine::available(&name) {
            return;
        }
    };
}
pub(crate) use needs_engine;

#[test]
fn the_test_image_is_named_as_the_set_up_script_names_it() {
    let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/setup.sh")).unwrap();
    assert!(script.contains(&format!("IMAGE={}\n", engine::IMAGE)));
}
