//! `longshore rerun`: asks for an earlier run again, with a fresh pair of events.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nostr::{Event, EventId, Filter, PublicKey};
use serde_json::Value;

use super::{
    api::ServerArgs,
    event_chain,
    hive_ci::RerunRequest,
    key_file, relay,
    run_status::RunTitle,
    show::text,
    submit::{self, WaitArgs},
};

/// Run an earlier run again: all of it, what failed, or one job with what depends on it
///
/// Publishes a new run (kind 5401) and job (kind 5100) signed with your key. The other jobs' results are carried over.
/// Secrets are gone by then: the names that the earlier run had are read from the coordinator, their values come from
/// environment variables of those names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Only the jobs that failed or were cancelled, with what depends on them
    #[arg(long, conflicts_with = "job")]
    failed: bool,
    /// Only this job, by its name or its id in the workflow, with what depends on it. The name of one leg of a matrix, as
    /// `show` prints it, means that leg; the id means all of them
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Go on without this secret; a job that uses it is refused. May be repeated
    #[arg(long = "without-secret", value_name = "NAME")]
    without: Vec<String>,
    /// Relays that have the earlier events, and to publish to; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    watch: WaitArgs,
}

/// Exit code: 0 success, 1 failure, 130 cancelled; without waiting, 0 taken and 1 refused.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let keys = args.server.keys()?.context(key_file::NO_KEY)?;
    let earlier: Value = args.server.connect()?.get(&format!("/api/runs/{}", args.run)).await?;
    let client = relay::connect(&args.relays).await?;
    let (run, job) = pair_of(&client, &earlier).await?;
    let secrets = args.secrets(&earlier)?;
    let pool = event_chain::tag_value(&job, "p");
    let pool = PublicKey::from_hex(&pool).with_context(|| format!("the earlier job names no pool: {pool:?}"))?;
    let commit = text(&earlier, "commit");
    let request =
        RerunRequest { pool, run: &run, job: &job, commit: &commit, jobs: args.jobs(&earlier), secrets: &secrets };
    let (run, job) = request.sign(&keys)?;
    let [workflow, branch, message] = ["name", "reference", "commit_message"].map(|key| text(&earlier, key));
    let title = RunTitle::new(&workflow, &branch, &commit, &message);
    submit::publish(client, run, job, pool, title, &args.server, &args.watch).await
}

async fn pair_of(client: &nostr_sdk::Client, earlier: &Value) -> Result<(Event, Event)> {
    let id = |key: &str| EventId::from_hex(&text(earlier, key)).context("the run was not asked for by an event");
    let (run, job) = (id("run_event")?, id("job_event")?);
    let found = relay::find(client, vec![Filter::new().ids([run, job])]).await?;
    let event = |id: EventId| {
        let event = found.iter().find(|event| event.id == id && event.verify().is_ok()).cloned();
        event.with_context(|| format!("no relay has the event {id} of the earlier run: name one that has with --relay"))
    };
    Ok((event(run)?, event(job)?))
}

impl Args {
    /// The earlier run's secrets with the values of this environment.
    fn secrets(&self, earlier: &Value) -> Result<Vec<(String, String)>> {
        let names = earlier["secret_names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let wanted: Vec<&str> = names.filter(|name| !self.without.iter().any(|left| left == name)).collect();
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| std::env::var_os(name).is_none()).collect();
        ensure!(
            missing.is_empty(),
            "the earlier run had secrets that are not in the environment: {}; set these variables, or leave one out with \
             --without-secret NAME",
            missing.join(", ")
        );
        let value = |name: &str| std::env::var(name).with_context(|| format!("the value of {name} is not UTF-8 text"));
        wanted.into_iter().map(|name| Ok((name.to_owned(), value(name)?))).collect()
    }

    fn jobs(&self, earlier: &Value) -> Vec<String> {
        match &self.job {
            Some(job) => vec!["rerun".into(), "job".into(), id_of(earlier, job)],
            None if self.failed => vec!["rerun".into(), "failed".into()],
            None => vec!["rerun".into(), "all".into()],
        }
    }
}

/// What a rerun calls the job, or the leg, that is printed with a name; what no job is called stays as it is.
fn id_of(earlier: &Value, name: &str) -> String {
    let jobs = earlier["jobs"].as_array().into_iter().flatten();
    let Some(job) = jobs.into_iter().find(|job| job["name"] == name) else { return name.to_owned() };
    let key = job["key"].as_str().unwrap_or(name);
    // An older coordinator does not know of legs.
    let id = job["rerun"].as_str().or_else(|| key.split('/').next());
    id.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_run_again_by_its_name_its_id_or_a_leg_of_it() {
        let run = json!({"jobs": [
            {"key": "build", "name": "Build it", "rerun": "build"}, {"key": "test/1", "name": "test (us, 1)", "rerun": "test/1"},
            {"key": "d/0/push", "name": "Deploy / push", "rerun": "d"}, {"key": "old/1", "name": "old (1)"},
        ]});
        for (name, id) in [
            ("Build it", "build"),
            ("build", "build"),
            ("test (us, 1)", "test/1"),
            ("test", "test"),
            ("old (1)", "old"),
            ("Deploy / push", "d"),
            ("nope", "nope"),
        ] {
            assert_eq!(id_of(&run, name), id);
        }
    }
}
