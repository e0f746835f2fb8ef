//! Hive CI, the requesting side: the pair of run (5401) and job (5100) events that asks a pool for a run, as web clients
//! send it.

use anyhow::{Context as _, Result};
use domain::run::Repository;
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, Tag, ToBech32 as _, nips::nip44};

/// Workflow run.
const RUN: u16 = 5401;
/// Job request.
const JOB: u16 = 5100;
/// What a runner executes that does not know workflows; pools that do recognise the shape and never run it.
const RUNNER_SCRIPT: &str = "echo 'this job wants a runner that runs workflows itself' >&2; exit 1";

/// A request for a new run.
pub(crate) struct RunRequest<'a> {
    /// Key of the pool.
    pub(crate) pool: PublicKey,
    pub(crate) repository: &'a Repository,
    /// Path of the workflow in the repository.
    pub(crate) workflow: &'a str,
    pub(crate) trigger: &'a str,
    /// Empty: the default branch.
    pub(crate) branch: &'a str,
    /// Empty: the newest commit of the branch.
    pub(crate) commit: &'a str,
    /// Inputs of `workflow_dispatch`, public.
    pub(crate) inputs: Vec<(&'a str, &'a str)>,
    /// Variables of the steps, public.
    pub(crate) env: Vec<(&'a str, &'a str)>,
    /// Names and values.
    pub(crate) secrets: &'a [(String, String)],
    /// Relays that the answers should go to.
    pub(crate) relays: &'a [String],
}

impl RunRequest<'_> {
    /// Signs the run and the job event, with a new publisher key for the result.
    pub(crate) fn sign(&self, keys: &Keys) -> Result<(Event, Event)> {
        let publisher = Keys::generate();
        let mut tags = vec![
            vec!["a".to_owned(), self.repository.address.clone()],
            vec!["workflow".into(), self.workflow.into()],
            vec!["triggered-by".into(), keys.public_key().to_hex()],
            vec!["publisher".into(), publisher.public_key().to_hex()],
            vec!["trigger".into(), self.trigger.into()],
            vec!["branch".into(), self.branch.into()],
            vec!["commit".into(), self.commit.into()],
            vec!["t".into(), "hive-ci".into()],
        ];
        tags.extend(self.inputs.iter().map(|(name, value)| ["input", name, value].map(str::to_owned).into()));
        let run = sign(keys, RUN, tags)?;
        let mut tags = vec![
            vec!["p".to_owned(), self.pool.to_hex()],
            vec!["e".into(), run.id.to_hex()],
            vec!["cmd".into(), "bash".into()],
            vec!["args".into(), "-c".into(), RUNNER_SCRIPT.into()],
        ];
        let mut env = |name: &str, value: String| tags.push(vec!["env".into(), name.to_owned(), value]);
        env("HIVE_CI_RUN_ID", run.id.to_hex());
        env("HIVE_CI_REPOSITORY", self.repository_url()?);
        env("HIVE_CI_WORKFLOW", self.workflow.to_owned());
        env("HIVE_CI_BRANCH", self.branch.to_owned());
        env("HIVE_CI_COMMIT", self.commit.to_owned());
        env("HIVE_CI_RELAYS", self.relays.join(","));
        self.env.iter().for_each(|(name, value)| env(name, (*value).to_owned()));
        tags.extend(secret_tags(keys, &self.pool, &publisher, self.secrets)?);
        Ok((run.clone(), sign(keys, JOB, tags)?))
    }

    /// `nostr://OWNER[/RELAY…]/IDENTIFIER`.
    fn repository_url(&self) -> Result<String> {
        let owner = PublicKey::from_hex(&self.repository.owner)?;
        let owner = owner.to_bech32().unwrap_or_else(|_| owner.to_hex());
        // The address may name relays that know the repository, which are not those of the pool.
        let others = self.repository.relays.iter().filter(|relay| !self.relays.contains(relay));
        let encoded = |relay: &String| url::form_urlencoded::byte_serialize(relay.as_bytes()).collect::<String>();
        let parts: Vec<String> = std::iter::once(owner)
            .chain(self.relays.iter().chain(others).map(encoded))
            .chain(std::iter::once(self.repository.identifier.clone()))
            .collect();
        Ok(format!("nostr://{}", parts.join("/")))
    }
}

/// A request to run an earlier run again.
pub(crate) struct RerunRequest<'a> {
    /// Key of the pool.
    pub(crate) pool: PublicKey,
    /// The earlier run event (5401).
    pub(crate) run: &'a Event,
    /// The earlier job event (5100).
    pub(crate) job: &'a Event,
    /// Commit of the earlier run.
    pub(crate) commit: &'a str,
    /// The tag `rerun`: which jobs run again.
    pub(crate) jobs: Vec<String>,
    /// Names and values.
    pub(crate) secrets: &'a [(String, String)],
}

impl RerunRequest<'_> {
    /// Signs the earlier pair anew, with a new publisher key for the result.
    pub(crate) fn sign(&self, keys: &Keys) -> Result<(Event, Event)> {
        let publisher = Keys::generate();
        let kept = ["a", "workflow", "trigger", "branch", "ref", "t", "input"];
        let mut tags: Vec<Vec<String>> = copied(self.run, |tag| kept.contains(&tag[0].as_str()));
        tags.push(vec!["triggered-by".into(), keys.public_key().to_hex()]);
        tags.push(vec!["publisher".into(), publisher.public_key().to_hex()]);
        tags.push(vec!["commit".into(), self.commit.to_owned()]);
        tags.push(vec!["previous".into(), self.run.id.to_hex()]);
        tags.push(self.jobs.clone());
        let run = sign(keys, RUN, tags)?;
        let is_run_id = |tag: &[String]| tag[0] == "env" && tag.get(1).is_some_and(|name| name == "HIVE_CI_RUN_ID");
        let kept = ["p", "cmd", "args", "env"];
        let mut tags = copied(self.job, |tag| kept.contains(&tag[0].as_str()) && !is_run_id(tag));
        tags.insert(1, vec!["e".into(), run.id.to_hex()]);
        tags.push(vec!["env".into(), "HIVE_CI_RUN_ID".into(), run.id.to_hex()]);
        tags.extend(secret_tags(keys, &self.pool, &publisher, self.secrets)?);
        Ok((run.clone(), sign(keys, JOB, tags)?))
    }
}

/// Tags of an event that pass a test, unchanged.
fn copied(event: &Event, passes: impl Fn(&[String]) -> bool) -> Vec<Vec<String>> {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    tags.filter(|tag| !tag.is_empty() && passes(tag)).map(<[String]>::to_vec).collect()
}

/// The publisher key and the secrets, each encrypted for the pool (NIP-44).
fn secret_tags(
    keys: &Keys,
    pool: &PublicKey,
    publisher: &Keys,
    secrets: &[(String, String)],
) -> Result<Vec<Vec<String>>> {
    let publisher = ("HIVE_CI_NSEC".to_owned(), publisher.secret_key().to_secret_hex());
    let tag = |(name, value): &(String, String)| {
        let sealed = nip44::encrypt(keys.secret_key(), pool, value, nip44::Version::V2);
        Ok(vec!["secret".into(), name.clone(), sealed.with_context(|| format!("cannot encrypt {name}"))?])
    };
    std::iter::once(&publisher).chain(secrets).map(tag).collect()
}

fn sign(keys: &Keys, kind: u16, tags: Vec<Vec<String>>) -> Result<Event> {
    let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>().context("a tag is empty")?;
    EventBuilder::new(Kind::from(kind), "").tags(tags).sign_with_keys(keys).context("cannot sign")
}
