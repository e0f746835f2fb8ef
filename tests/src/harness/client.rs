//! A Nostr client that asks for runs the way Budabit and the watcher do, and hears the answers.

use std::time::Duration;

use anyhow::{Context, Result};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, PublicKey, Tag, Timestamp, ToBech32, nips::nip44};
use nostr_sdk::{Client, RelayPoolNotification};
use tokio::sync::{mpsc, watch};

use crate::oracle::ngit;

/// Kinds as the ecosystem numbers them.
pub mod kind {
    /// Workflow run.
    pub const RUN: u16 = 5401;
    /// Job.
    pub const JOB: u16 = 5100;
    /// Job status.
    pub const STATUS: u16 = 30100;
    /// Job result.
    pub const RESULT: u16 = 5101;
    /// Workflow result.
    pub const WORKFLOW_RESULT: u16 = 5402;
    /// Cancel.
    pub const CANCEL: u16 = 5102;
    /// Worker advertisement.
    pub const ADVERTISEMENT: u16 = 10100;
}

/// How the runner script is carried in a job's `args`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The web client: download and run.
    A1,
    /// The older web client: a heredoc.
    A2,
    /// The watcher: download, check the hash, run.
    A4,
    /// The Gitea bridge: no `HIVE_CI_` values, its arguments say what to build.
    A5,
    /// The deployment system's own command, likewise.
    A6,
    /// Very old: `act` alone.
    A7,
}

/// One press of the button.
#[derive(Debug, Clone)]
pub struct Press {
    /// Signs both events.
    pub author: Keys,
    /// The `publisher` key.
    pub publisher: Keys,
    /// `30617:<owner>:<d>`.
    pub repository: String,
    /// Relay of the repository.
    pub relay: String,
    /// The coordinator.
    pub worker: PublicKey,
    /// Path of the workflow.
    pub workflow: String,
    /// May be empty.
    pub commit: String,
    /// Short name.
    pub branch: String,
    /// `ref` tag.
    pub reference: Option<String>,
    /// `trigger` tag.
    pub trigger: String,
    /// Form of the args.
    pub shape: Shape,
    /// The user's own pairs.
    pub env: Vec<(String, String)>,
    /// The user's own secrets.
    pub secrets: Vec<(String, String)>,
    /// Further tags of the run.
    pub more: Vec<Vec<String>>,
    /// `payment` tag.
    pub payment: Option<String>,
    /// What stands as HIVE_CI_NSEC; the publisher's secret unless set.
    pub nsec: Option<String>,
}

impl Press {
    /// The pair of events, in the tag order of the web client.
    pub fn events(&self) -> Result<(Event, Event)> {
        let author = self.author.public_key().to_hex();
        let mut tags = vec![
            vec!["a".to_owned(), self.repository.clone()],
            vec!["workflow".into(), self.workflow.clone()],
            vec!["triggered-by".into(), author],
            vec!["publisher".into(), self.publisher.public_key().to_hex()],
            vec!["trigger".into(), self.trigger.clone()],
            vec!["branch".into(), self.branch.clone()],
        ];
        if let Some(reference) = &self.reference {
            tags.push(vec!["ref".into(), reference.clone()]);
        }
        tags.push(vec!["commit".into(), self.commit.clone()]);
        tags.push(vec!["t".into(), "hive-ci".into()]);
        tags.extend(self.more.iter().cloned());
        let run = sign(&self.author, kind::RUN, tags)?;

        let mut tags = vec![
            vec!["p".to_owned(), self.worker.to_hex()],
            vec!["e".into(), run.id.to_hex()],
            vec!["cmd".into(), self.command().into()],
            self.args(&run),
        ];
        if let Some(payment) = &self.payment {
            tags.push(vec!["payment".into(), payment.clone()]);
        }
        let pairs = [
            ("HIVE_CI_RUN_ID", run.id.to_hex()),
            ("HIVE_CI_REPOSITORY", self.nostr_url()?),
            ("HIVE_CI_WORKFLOW", self.workflow.clone()),
            ("HIVE_CI_BRANCH", self.branch.clone()),
            ("HIVE_CI_COMMIT", self.commit.clone()),
            ("HIVE_CI_RELAYS", self.relay.clone()),
            ("HIVE_CI_BLOSSOM_SERVER", "https://blossom.primal.net".to_owned()),
        ];
        if !matches!(self.shape, Shape::A5 | Shape::A6) {
            tags.extend(pairs.into_iter().map(|(name, value)| vec!["env".into(), name.into(), value]));
        }
        tags.extend(self.env.iter().map(|(name, value)| vec!["env".into(), name.clone(), value.clone()]));
        let nsec = self.nsec.clone().unwrap_or_else(|| self.publisher.secret_key().to_secret_hex());
        let secrets = std::iter::once(("HIVE_CI_NSEC".to_owned(), nsec)).chain(self.secrets.iter().cloned());
        for (name, value) in secrets {
            let sealed = nip44::encrypt(self.author.secret_key(), &self.worker, value, nip44::Version::V2)?;
            tags.push(vec!["secret".into(), name, sealed]);
        }
        let job = sign(&self.author, kind::JOB, tags)?;
        Ok((run, job))
    }

    fn nostr_url(&self) -> Result<String> {
        let mut parts = self.repository.splitn(3, ':').skip(1);
        let owner = PublicKey::from_hex(parts.next().context("an address has an owner")?)?.to_bech32()?;
        let relay: String = url::form_urlencoded::byte_serialize(self.relay.as_bytes()).collect();
        Ok(format!("nostr://{owner}/{relay}/{}", parts.next().context("an address has an identifier")?))
    }

    fn command(&self) -> &'static str {
        match self.shape {
            Shape::A5 => "sh",
            Shape::A6 => "loom-ci",
            Shape::A1 | Shape::A2 | Shape::A4 | Shape::A7 => "bash",
        }
    }

    /// The script would write this file on whatever host ran it; nothing may ever do so.
    fn args(&self, run: &Event) -> Vec<String> {
        let (flag, script) = match self.shape {
            Shape::A5 => {
                let script = "git clone \"$1\" repo && touch /tmp/run-workflow.sh && act \"$3\"";
                let given = ["https://git.example/x", &self.commit, &self.trigger, &self.workflow];
                let args = ["args", "-c", script, "hive-ci"].into_iter().chain(given);
                return args.map(str::to_owned).collect();
            }
            Shape::A6 => {
                let run = run.id.to_hex();
                let given = ["--repo", "https://git.example/x", "--ref", &self.branch, "--workflow", &self.workflow];
                let more = ["--event", &self.trigger, "--run", &run];
                return ["args", "run"].into_iter().chain(given).chain(more).map(str::to_owned).collect();
            }
            Shape::A7 => {
                let script = format!("touch /tmp/run-workflow.sh; act -W {} --rm", self.workflow);
                return vec!["args".into(), "-c".into(), script];
            }
            Shape::A1 => (
                "-c",
                "curl -fsSL \"https://blossom.example/00\" -o /tmp/run-workflow.sh && chmod +x /tmp/run-workflow.sh && \
                 /tmp/run-workflow.sh",
            ),
            Shape::A2 => (
                "-lc",
                "cat > /tmp/run-workflow.sh <<'HIVE_CI_RUNNER_SCRIPT_EOF_DELIMITER'\n#!/usr/bin/env bash\nsudo act\n\
                 HIVE_CI_RUNNER_SCRIPT_EOF_DELIMITER\nchmod +x /tmp/run-workflow.sh\n/tmp/run-workflow.sh",
            ),
            Shape::A4 => (
                "-c",
                "curl -fsSL \"https://blossom.example/664d3ff20259a4475179137fd08bbd2e63d449209c2d881c1fde1ae13019e5ea\" \
                 -o /tmp/run-workflow.sh && echo \"664d3ff20259a4475179137fd08bbd2e63d449209c2d881c1fde1ae13019e5ea  \
                 /tmp/run-workflow.sh\" | sha256sum -c - && chmod +x /tmp/run-workflow.sh && /tmp/run-workflow.sh",
            ),
        };
        vec!["args".into(), flag.into(), script.into()]
    }
}

/// Signs an event of now.
pub fn sign(keys: &Keys, kind: u16, tags: Vec<Vec<String>>) -> Result<Event> {
    sign_at(keys, kind, tags, Timestamp::now())
}

/// Signs an event of a given time.
pub fn sign_at(keys: &Keys, kind: u16, tags: Vec<Vec<String>>, at: Timestamp) -> Result<Event> {
    let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>()?;
    Ok(EventBuilder::new(Kind::from(kind), "").tags(tags).custom_created_at(at).sign_with_keys(keys)?)
}

/// Hears everything a coordinator publishes, in the order of arrival.
#[derive(Debug)]
pub struct Listener {
    client: Client,
    heard: watch::Receiver<Vec<Event>>,
}

impl Listener {
    /// Connects and subscribes to the kinds of answers.
    pub async fn connect(relays: &[String]) -> Result<Self> {
        // For every TLS user of the test's process; a second call only repeats the choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::default();
        for relay in relays {
            client.add_relay(relay).await?;
        }
        client.connect().await;
        client.wait_for_connection(Duration::from_secs(10)).await;
        let mut notifications = client.notifications();
        let kinds = [kind::STATUS, kind::RESULT, kind::WORKFLOW_RESULT, kind::ADVERTISEMENT, 10002, 5];
        let kinds = kinds.into_iter().chain(ngit::KINDS).map(Kind::from);
        client.subscribe(Filter::new().kinds(kinds), None).await?;
        let (into, mut events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(notification) = notifications.recv().await {
                if let RelayPoolNotification::Event { event, .. } = notification
                    && into.send(*event).is_err()
                {
                    return;
                }
            }
        });
        let (publish, heard) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                publish.send_modify(|all| all.push(event));
            }
        });
        Ok(Self { client, heard })
    }

    /// Sends an event to every relay; at least one must take it.
    pub async fn publish(&self, event: &Event) -> Result<()> {
        let output = self.client.send_event(event).await?;
        anyhow::ensure!(!output.success.is_empty(), "no relay took {}: {:?}", event.as_json(), output.failed);
        Ok(())
    }

    /// What was heard so far about a job and its run.
    pub fn answers(&self, run: &Event, job: &Event) -> Vec<Event> {
        Answers::among(&self.heard.borrow(), run, job).0
    }

    /// Waits until `found` says so of what was heard. An event that strict readers drop is an error, whoever published it.
    pub async fn until(&self, limit: Duration, mut found: impl FnMut(&[Event]) -> bool) -> Result<Vec<Event>> {
        let mut heard = self.heard.clone();
        let all = tokio::time::timeout(limit, heard.wait_for(|all| found(all))).await;
        ngit::judge_all(self.heard.borrow().iter()).map_err(anyhow::Error::msg)?;
        match all {
            Ok(all) => Ok(all?.clone()),
            Err(_) => anyhow::bail!(
                "not heard within {limit:?}; heard: {}",
                self.heard.borrow().iter().map(JsonUtil::as_json).collect::<Vec<_>>().join("\n")
            ),
        }
    }

    /// Waits for the last status of a job and gives all answers, in the order of arrival.
    pub async fn end(&self, run: &Event, job: &Event, limit: Duration) -> Result<Answers> {
        self.answered(run, job, limit, Answers::ended).await
    }

    /// Waits until the answers to a job are as `enough` wants them.
    pub async fn answered(
        &self,
        run: &Event,
        job: &Event,
        limit: Duration,
        enough: impl Fn(&Answers) -> bool,
    ) -> Result<Answers> {
        let heard = self.until(limit, |heard| enough(&Answers::among(heard, run, job))).await?;
        Ok(Answers::among(&heard, run, job))
    }

    /// Waits until the job has this status.
    pub async fn status(&self, job: &Event, status: &str, limit: Duration) -> Result<()> {
        let id = job.id.to_hex();
        let has = |event: &Event| {
            event.kind == Kind::from(kind::STATUS) && refers_to(event, &id) && tag(event, "status") == status
        };
        self.until(limit, |events| events.iter().any(has)).await.map(drop)
    }
}

/// The answers to one job, in the order of arrival.
#[derive(Debug, Clone)]
pub struct Answers(pub Vec<Event>);

impl Answers {
    fn among(heard: &[Event], run: &Event, job: &Event) -> Self {
        let about = [run.id.to_hex(), job.id.to_hex()];
        Self(heard.iter().filter(|event| about.iter().any(|id| refers_to(event, id))).cloned().collect())
    }

    /// Values of the status events.
    pub fn statuses(&self) -> Vec<String> {
        self.of(kind::STATUS).iter().map(|event| tag(event, "status")).collect()
    }

    /// Whether one of the statuses is a last one.
    pub fn ended(&self) -> bool {
        self.statuses().iter().any(|status| !matches!(status.as_str(), "queued" | "running"))
    }

    /// Events of a kind.
    pub fn of(&self, kind: u16) -> Vec<&Event> {
        self.0.iter().filter(|event| event.kind == Kind::from(kind)).collect()
    }

    /// The only event of a kind.
    pub fn only(&self, kind: u16) -> Result<&Event> {
        match self.of(kind)[..] {
            [event] => Ok(event),
            ref many => anyhow::bail!("expected one event of kind {kind}, there are {}", many.len()),
        }
    }

    /// Kinds in the order of arrival.
    pub fn kinds(&self) -> Vec<u16> {
        self.0.iter().map(|event| event.kind.as_u16()).collect()
    }
}

/// Whether an `e` tag of the event names this id.
pub fn refers_to(event: &Event, id: &str) -> bool {
    event.tags.iter().any(|tag| matches!(tag.as_slice(), [name, value, ..] if name == "e" && value == id))
}

/// The first value of a tag, or nothing.
pub fn tag(event: &Event, name: &str) -> String {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    let found = tags.filter(|tag| tag.first().is_some_and(|first| first == name)).find_map(|tag| tag.get(1));
    found.cloned().unwrap_or_default()
}
