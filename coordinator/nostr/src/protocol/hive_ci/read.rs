//! A pair of events becomes a request.

use indexmap::IndexMap;
use nostr::{Event, EventId, Keys, PublicKey, SecretKey, nips::nip44};
use secrecy::SecretString;

use crate::{
    protocol::{Ignored, Protocol, ReadContext, Refusal, Rejection, Secrets, bounds::out_of_bounds},
    tags,
};
use config::Limits;
use domain::run::{NostrOrigin, OriginEvent, Repository, RequestOrigin, RerunRequest, RerunScope, RunRequest};

use super::{
    HiveCi, JOB, PUBLISHER_SECRET, RUN, awaits,
    shape::{Arguments, Shape},
};

/// At most so many relays of a job are kept.
const RELAYS: usize = 16;
/// Bytes of a workflow's path, of a ref, of a repository's identifier and of a trigger: lists and logs show them whole.
const WORKFLOW: usize = 512;
const REF: usize = 512;
const IDENTIFIER: usize = 256;
const TRIGGER: usize = 64;

/// Reads a job event (5100) and its run event (5401). Both ids and signatures were checked before.
///
/// # Errors
/// See [`Rejection`]. A refusal carries the publisher key where it came and fits.
pub(super) fn request(job: &Event, run: &Event, context: &ReadContext<'_>) -> Result<(RunRequest, Secrets), Rejection> {
    if awaits(job, context)? != Some(run.id) {
        return Err(Rejection::Ignored(Ignored::ForeignRun));
    }
    let refuse = |reason: String, publisher: Option<Keys>| {
        Err(Rejection::Refused(Box::new(Refusal {
            origin: origin_of_pair(job, run, publisher.as_ref()),
            workflow: workflow(run).to_owned(),
            publisher,
            reason,
        })))
    };
    if run.kind.as_u16() != RUN {
        return refuse(format!("the `e` tag names an event of kind {}, not a run (kind {RUN})", run.kind), None);
    }
    if run.pubkey != job.pubkey {
        return Err(Rejection::Ignored(Ignored::ForeignRun));
    }
    let publisher = match publisher(job, run, context.keys) {
        Ok(publisher) => publisher,
        Err(reason) => return refuse(reason, None),
    };
    let pair = Pair { job, run, context };
    match pair.read(publisher.as_ref()) {
        Ok((request, values)) => Ok((request, Secrets { publisher, values })),
        Err(reason) => refuse(reason, publisher),
    }
}

/// Reads a job event (5100) that is its own run: it names repository and workflow itself, and no run, as the first clients
/// sent it.
///
/// # Errors
/// See [`Rejection`].
pub(super) fn whole(job: &Event, context: &ReadContext<'_>) -> Result<(RunRequest, Secrets), Rejection> {
    if awaits(job, context)?.is_some() {
        return Err(Rejection::Ignored(Ignored::NotAJob));
    }
    match (Pair { job, run: job, context }).read(None) {
        Ok((request, values)) => {
            Ok((RunRequest { origin: origin(job).into(), ..request }, Secrets { publisher: None, values }))
        }
        Err(reason) => Err(Rejection::Refused(Box::new(Refusal::of_event(&HiveCi, job, reason)))),
    }
}

/// The publisher key that came with the job. It must be the one that the run names: with any other key the client
/// would never see the result.
fn publisher(job: &Event, run: &Event, keys: &Keys) -> Result<Option<Keys>, String> {
    let sealed = tags::all(job, "secret").find(|tag| tag.get(1).is_some_and(|name| name == PUBLISHER_SECRET));
    let (Some(tag), Some(named)) = (sealed, tags::first(run, "publisher")) else {
        return Ok(None);
    };
    let text = decrypt(tag, &job.pubkey, keys)?;
    // `SecretKey::parse` takes 64 hex (Budabit, watcher) and nsec1 (Gitea bridge).
    let secret = SecretKey::parse(text.trim())
        .map_err(|_| format!("the secret {PUBLISHER_SECRET} is no key: give 64 hex or nsec1…"))?;
    let publisher = Keys::new(secret);
    let named = PublicKey::parse(named).map_err(|_| "the run's `publisher` is no public key (64 hex)".to_owned())?;
    if publisher.public_key() == named {
        Ok(Some(publisher))
    } else {
        Err(format!("the secret {PUBLISHER_SECRET} is not the key of the run's `publisher`: submit the run again"))
    }
}

/// What answering a job needs, as far as the job says it.
pub(super) fn origin(job: &Event) -> NostrOrigin {
    NostrOrigin {
        protocol: HiveCi.name().to_owned(),
        request: OriginEvent { kind: JOB, id: job.id.to_hex() },
        run: None,
        author: job.pubkey.to_hex(),
        publisher: None,
        relays: relays_named(job),
        details: serde_json::Value::Null,
    }
}

/// What answering a job with its run needs: a 5402 repeats the run's `workflow`.
fn origin_of_pair(job: &Event, run: &Event, publisher: Option<&Keys>) -> NostrOrigin {
    NostrOrigin {
        run: Some(OriginEvent { kind: RUN, id: run.id.to_hex() }),
        publisher: publisher.map(|keys| keys.public_key().to_hex()),
        details: serde_json::json!({ "workflow": workflow(run) }),
        ..origin(job)
    }
}

/// `workflow` exactly as in the run; the beginning of one that is refused for its length.
fn workflow(run: &Event) -> &str {
    let name = tags::first(run, "workflow").unwrap_or_default();
    name.get(..name.floor_char_boundary(WORKFLOW)).unwrap_or_default()
}

/// Owner (hex) and identifier of the repository that a run names.
pub(super) fn repository(run: &Event) -> Option<(String, &str)> {
    let mut parts = tags::first(run, "a")?.splitn(3, ':');
    let (Some("30617" | "30618"), Some(owner), Some(identifier)) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let owner = PublicKey::from_hex(owner).ok()?.to_hex();
    (!identifier.is_empty()).then_some((owner, identifier))
}

fn decrypt(tag: &[String], author: &PublicKey, keys: &Keys) -> Result<String, String> {
    let name = tag.get(1).map(String::as_str).unwrap_or_default();
    let payload = tag.get(2).map(String::as_str).unwrap_or_default();
    nip44::decrypt(keys.secret_key(), author, payload).map_err(|error| {
        format!("the secret {name} can't be decrypted ({error}): encrypt it with NIP-44 for this pool")
    })
}

/// Names and values of `env` tags.
pub(super) type Pairs = IndexMap<String, String>;

pub(super) struct Pair<'a> {
    pub(super) job: &'a Event,
    pub(super) run: &'a Event,
    pub(super) context: &'a ReadContext<'a>,
}

impl Pair<'_> {
    /// Inputs of a dispatch: tags `input` of the run, a name and a value each. The workflow's rules are theirs.
    fn inputs(&self) -> Option<Pairs> {
        let pair = |tag: &[String]| Some((tag.get(1)?.clone(), tag.get(2)?.clone()));
        let inputs: Pairs = tags::all(self.run, "input").filter_map(pair).take(self.context.limits.env_pairs).collect();
        (!inputs.is_empty()).then_some(inputs)
    }

    fn read(&self, publisher: Option<&Keys>) -> Result<(RunRequest, Vec<(String, SecretString)>), String> {
        self.unpaid()?;
        // The run's age is the job's business: a rerun makes both anew, and the job was looked at.
        if let Some(reason) =
            out_of_bounds(self.run, &Limits { age: u64::MAX, ..self.context.limits.clone() }, self.context.now)
        {
            return Err(reason);
        }
        let mut notices = Vec::new();
        let (given, env) = self.env(&mut notices)?;
        let arguments = self.recognise(&given, &mut notices)?;
        let repository = self.repository(&given)?;
        // The run's own tags win over the job's environment and its arguments, which some clients leave out.
        let or_given = |tag: &str, name: &str, argument: &str| {
            let own = tags::first(self.run, tag).map(str::trim).filter(|value| !value.is_empty());
            let given = given.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
            own.or(given).unwrap_or(argument.trim()).to_owned()
        };
        let commit = or_given("commit", "HIVE_CI_COMMIT", arguments.commit).to_ascii_lowercase();
        if !commit.is_empty() && !(4..=64).contains(&commit.len()) || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("the run's `commit` is no commit id: give 40 or 64 hex, or leave it empty".into());
        }
        let named = tags::first(self.run, "ref").filter(|name| !name.is_empty());
        let argument = Some(arguments.reference).filter(|name| !name.is_empty());
        let reference = named.or(argument.filter(|_| tags::first(self.run, "branch").is_none_or(str::is_empty)));
        if reference.is_some_and(|name| !name.starts_with("refs/")) {
            return Err("the run's `ref` must be a full name such as refs/heads/main".into());
        }
        if publisher.is_none() {
            notices.push(format!(
                "No result of kind 5402 will be published: the run names no `publisher`, or the job brought no \
                 {PUBLISHER_SECRET}."
            ));
        }
        let values = self.secrets(&mut notices)?;
        let relays = list(given.get("HIVE_CI_RELAYS"));
        let workflow = or_given("workflow", "HIVE_CI_WORKFLOW", arguments.workflow);
        let branch = or_given("branch", "HIVE_CI_BRANCH", arguments.branch);
        let trigger = tags::first(self.run, "trigger").or(Some(arguments.trigger)).filter(|word| !word.is_empty());
        for (name, value, most) in [
            ("workflow", workflow.as_str(), WORKFLOW),
            ("branch", branch.as_str(), REF),
            ("ref", reference.unwrap_or_default(), REF),
            ("trigger", trigger.unwrap_or_default(), TRIGGER),
            ("a", repository.identifier.as_str(), IDENTIFIER),
        ] {
            if value.len() > most || value.contains(char::is_control) {
                return Err(format!("the run's `{name}` is longer than {most} bytes, or has control characters"));
            }
        }
        let request = RunRequest {
            id: self.job.id.to_hex(),
            origin: RequestOrigin::from(NostrOrigin { relays, ..origin_of_pair(self.job, self.run, publisher) }),
            repository,
            workflow,
            commit,
            branch,
            reference: reference.map(str::to_owned),
            trigger: trigger.map(str::to_owned),
            payload: None,
            actor: self.job.pubkey.to_hex(),
            env,
            notices,
            inputs: self.inputs(),
            again: self.again()?,
            command: None,
            pinned: None,
            pull_request: None,
            received_at: self.context.now,
        };
        Ok((request, values))
    }

    pub(super) fn unpaid(&self) -> Result<(), String> {
        match tags::all(self.job, "payment").next() {
            Some(_) => Err("this pool takes no payment, send the job without one".into()),
            None => Ok(()),
        }
    }

    /// The earlier run that is asked for again, if any.
    fn again(&self) -> Result<Option<RerunRequest>, String> {
        let previous = tags::first(self.run, "previous");
        let asked = tags::all(self.run, "rerun").next();
        let (previous, asked) = match (previous, asked) {
            (None, None) => return Ok(None),
            (Some(previous), Some(asked)) => (previous, asked),
            _ => return Err("a rerun names the earlier run in `previous` and its jobs in `rerun`: give both".into()),
        };
        let jobs = match (asked.get(1).map(String::as_str), asked.get(2).filter(|job| !job.is_empty())) {
            (Some("all"), None) => RerunScope::All,
            (Some("failed"), None) => RerunScope::Failed,
            (Some("job"), Some(job)) => RerunScope::One(job.clone()),
            _ => return Err("the run's `rerun` is `all`, `failed`, or `job` with the job's id after it".into()),
        };
        let previous = EventId::from_hex(previous);
        let previous = previous.map_err(|_| "the run's `previous` is no event id (64 hex)".to_owned())?;
        Ok(Some(RerunRequest { previous: previous.to_hex(), jobs }))
    }

    /// A Hive CI job has a known shape, or says whose run it is: users may edit what starts the script.
    fn recognise(&self, given: &Pairs, notices: &mut Vec<String>) -> Result<Arguments<'_>, String> {
        let run = self.run.id.to_hex();
        let same_run = given.get("HIVE_CI_RUN_ID").map(|id| *id == run);
        let arguments = match Shape::of(self.job) {
            Some(shape) => match shape.refusal() {
                Some(reason) => return Err(reason.to_owned()),
                None => shape.arguments(self.job),
            },
            None if same_run == Some(true) => Arguments::default(),
            None => {
                return Err(
                    "the job is no Hive CI job: neither its command nor HIVE_CI_RUN_ID belongs to the run".into()
                );
            }
        };
        if arguments.dependencies {
            return Err("the job names sources beside its repository (`--dep`), which are not fetched here: let the \
                        workflow fetch them, and send the job without"
                .into());
        }
        if same_run == Some(false) {
            notices.push("HIVE_CI_RUN_ID names another run than the `e` tag; the `e` tag counts.".into());
        }
        if !arguments.run.is_empty() && arguments.run != run {
            notices.push("The job's `--run` names another run than the `e` tag; the `e` tag counts.".into());
        }
        for (tag, argument) in [("workflow", arguments.workflow), ("commit", arguments.commit)] {
            let own = tags::first(self.run, tag).unwrap_or_default();
            if !own.is_empty() && !argument.is_empty() && !own.eq_ignore_ascii_case(argument) {
                notices.push(format!("The job's command names another {tag} than the run; the run counts."));
            }
        }
        Ok(arguments)
    }

    fn repository(&self, given: &Pairs) -> Result<Repository, String> {
        let unnamed = || "the run names no repository: give an `a` tag 30617:<owner hex>:<identifier>".to_owned();
        let (owner, identifier) = repository(self.run).ok_or_else(unnamed)?;
        let tag = tags::all(self.run, "a").next().ok_or_else(unnamed)?;
        let mut relays: Vec<String> = tag.get(2).filter(|hint| is_relay(hint)).cloned().into_iter().collect();
        relays.extend(relays_of_url(given.get("HIVE_CI_REPOSITORY").map(String::as_str).unwrap_or_default()));
        relays.extend(list(given.get("HIVE_CI_RELAYS")));
        Ok(Repository {
            address: format!("30617:{owner}:{identifier}"),
            owner,
            identifier: identifier.to_owned(),
            relays: distinct(relays),
        })
    }

    /// The `HIVE_CI_` values, and what is left for the workflow.
    pub(super) fn env(&self, notices: &mut Vec<String>) -> Result<(Pairs, Pairs), String> {
        let pairs = tags::all(self.job, "env").count();
        if pairs > self.context.limits.env_pairs {
            return Err(format!(
                "the job has {pairs} env pairs, this pool takes at most {}",
                self.context.limits.env_pairs
            ));
        }
        let (mut given, mut env) = (IndexMap::new(), IndexMap::new());
        for tag in tags::all(self.job, "env") {
            let name = tag.get(1).map(String::as_str).unwrap_or_default();
            let value = tag.get(2).cloned().unwrap_or_default();
            if value.len() > self.context.limits.env_value {
                return Err(too_long("env", name, value.len(), self.context.limits.env_value));
            }
            if name.starts_with("HIVE_CI_") {
                given.insert(name.to_owned(), value);
            } else if let Some(notice) = unusable("env", name) {
                notices.push(notice);
            } else {
                env.insert(name.to_owned(), value);
            }
        }
        Ok((given, env))
    }

    pub(super) fn secrets(&self, notices: &mut Vec<String>) -> Result<Vec<(String, SecretString)>, String> {
        let count = tags::all(self.job, "secret").count();
        if count > self.context.limits.env_pairs {
            return Err(format!(
                "the job has {count} secrets, this pool takes at most {}",
                self.context.limits.env_pairs
            ));
        }
        let mut values: IndexMap<String, SecretString> = IndexMap::new();
        for tag in tags::all(self.job, "secret") {
            let name = tag.get(1).map(String::as_str).unwrap_or_default();
            if name == PUBLISHER_SECRET {
                continue;
            }
            if let Some(notice) = unusable("secret", name) {
                notices.push(notice);
                continue;
            }
            let value = decrypt(tag, &self.job.pubkey, self.context.keys)?;
            if value.len() > self.context.limits.env_value {
                return Err(too_long("secret", name, value.len(), self.context.limits.env_value));
            }
            if value.contains('\0') {
                return Err(format!("the secret {name} holds the character U+0000, which no environment can hold"));
            }
            values.insert(name.to_owned(), SecretString::from(value));
        }
        Ok(values.into_iter().collect())
    }
}

fn too_long(what: &str, name: &str, bytes: usize, limit: usize) -> String {
    format!("the {what} {} has {bytes} bytes, this pool takes at most {limit}", shown(name))
}

/// A name as far as a message can show it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Names that are not the author's to set: they steer the runner, or the programs it starts.
const RESERVED: [&str; 11] =
    ["BASH_ENV", "CI", "ENV", "HOME", "HOSTNAME", "NODE_OPTIONS", "PATH", "PWD", "SHELL", "TMPDIR", "USER"];
/// Beginnings of such names.
const RESERVED_PREFIXES: [&str; 6] = ["ACTIONS_", "GITHUB_", "HIVE_CI_", "LD_", "LONGSHORE_", "RUNNER_"];

/// Why a name of an env pair or secret is ignored, as a notice for the log.
fn unusable(what: &str, name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || name.len() > 256 || !word || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("The {what} `{}` was ignored: a name has letters, digits and `_`.", shown(name)));
    }
    let reserved = RESERVED.contains(&upper.as_str()) || RESERVED_PREFIXES.iter().any(|p| upper.starts_with(p));
    reserved.then(|| format!("The {what} `{name}` was ignored: the name is reserved."))
}

fn is_relay(url: &str) -> bool {
    url.len() <= 256 && (url.starts_with("wss://") || url.starts_with("ws://"))
}

fn list(value: Option<&String>) -> Vec<String> {
    let urls = value.map(String::as_str).unwrap_or_default().split(',').map(str::trim);
    distinct(urls.filter(|url| is_relay(url)).map(str::to_owned))
}

/// Relays of `nostr://<npub>/<relay>/…/<d>`, each a percent-encoded segment.
fn relays_of_url(url: &str) -> Vec<String> {
    let decoded =
        |segment: &str| url::form_urlencoded::parse(segment.as_bytes()).next().map(|(key, _)| key.into_owned());
    let segments = url.strip_prefix("nostr://").unwrap_or_default().split('/').skip(1);
    segments.filter_map(decoded).filter(|relay| is_relay(relay)).collect()
}

fn distinct(urls: impl IntoIterator<Item = String>) -> Vec<String> {
    let urls: indexmap::IndexSet<String> = urls.into_iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    urls.into_iter().take(RELAYS).collect()
}

/// Relays that a job names, where its run event may be found.
fn relays_named(job: &Event) -> Vec<String> {
    let given =
        |name: &str| tags::all(job, "env").find(|tag| tag.get(1).is_some_and(|n| n == name)).and_then(|tag| tag.get(2));
    let hint = tags::all(job, "e").filter_map(|tag| tag.get(2)).filter(|hint| is_relay(hint)).cloned();
    let url = given("HIVE_CI_REPOSITORY").map(String::as_str).unwrap_or_default();
    distinct(hint.chain(relays_of_url(url)).chain(list(given("HIVE_CI_RELAYS"))))
}
