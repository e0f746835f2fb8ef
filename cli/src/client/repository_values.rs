//! `longshore secret` and `longshore variable`: what a pool gives to the jobs of a repository.

use std::{
    io::{IsTerminal as _, Read as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nostr::{Keys, PublicKey, Timestamp, nips::nip44};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    api::{ApiClient, QueryArgs},
    key_file,
    show::{short, text},
    submit,
};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// Bytes of a value; the pool's limit too.
const MOST: u64 = 48 << 10;
/// How often an order is signed anew that came within the second of another.
const AGAIN: u32 = 3;

/// Secrets that a pool gives to the jobs of a repository: set one, list their names, remove one
///
/// Owner and maintainers of the repository may: each request is signed with your key. Jobs of trusted runs alone have
/// them, and their logs are masked. A value is encrypted for the pool before it leaves this machine, and nobody is shown
/// it again.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    verb: ValueVerb,
}

/// Variables that a pool gives to the jobs of a repository (`vars`): set one, list them, remove one
///
/// Owner and maintainers of the repository may: each request is signed with your key. They are stored and shown as they
/// are: for anything private set a secret.
#[derive(Debug, clap::Args)]
pub(crate) struct VariableArgs {
    #[command(subcommand)]
    verb: ValueVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ValueVerb {
    /// Set a value, read from standard input or asked for; never an argument, which others on this machine can see
    Set {
        /// Its name: letters, digits and _
        name: String,
        #[command(flatten)]
        target: ValueTarget,
    },
    /// List the names, with who set them and when
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        target: ValueTarget,
    },
    /// Remove it: jobs that start from now on do not have it
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        target: ValueTarget,
    },
}

/// Which repository, and which of its environments
#[derive(Debug, clap::Args)]
struct ValueTarget {
    /// The repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REPOSITORY")]
    repository: String,
    /// Only for jobs of this environment
    #[arg(long, short = 'e', value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    query: QueryArgs,
}

pub(crate) async fn secret(args: SecretArgs) -> Result<ExitCode> {
    run("secret", args.verb).await
}

pub(crate) async fn variable(args: VariableArgs) -> Result<ExitCode> {
    run("variable", args.verb).await
}

#[allow(clippy::print_stdout)]
async fn run(kind: &'static str, verb: ValueVerb) -> Result<ExitCode> {
    match verb {
        ValueVerb::Set { name, target } => {
            ensure!(!name.contains('='), "give the name alone: a value on the command line is seen by others");
            let (api, keys) = target.connect()?;
            let value = value(kind, &name)?;
            let value = match kind {
                "secret" => sealed(&api, &keys, &name, &value).await?,
                _ => value.to_string(),
            };
            let answer = target.order(&api, json!({"kind": kind, "name": name, "value": value})).await?;
            let verb = if answer["replaced"] == true { "changed" } else { "set" };
            Ok(target.query.print(&answer, |answer| println!("{verb}: {}", target.shown(answer))))
        }
        ValueVerb::Remove { name, target } => {
            let (api, _) = target.connect()?;
            let answer = target.order(&api, json!({"kind": kind, "name": name})).await?;
            Ok(target.query.print(&answer, |answer| println!("removed: {}", target.shown(answer))))
        }
        ValueVerb::List { target } => {
            let (api, _) = target.connect()?;
            let mut listed: Vec<Value> = api.get(&path(&target.repository, "/values")?).await?;
            let wanted = target.environment.as_deref().map(str::to_lowercase);
            listed.retain(|one| one["kind"] == kind && wanted.as_ref().is_none_or(|name| one["environment"] == **name));
            Ok(target.query.print(&Value::from(listed), |listed| print_list(kind, listed)))
        }
    }
}

impl ValueTarget {
    fn connect(&self) -> Result<(ApiClient, Keys)> {
        let keys = self.query.server.keys()?.context(key_file::NO_KEY)?;
        Ok((self.query.server.connect()?, keys))
    }

    /// Sends an order. Orders of one name have an order by their seconds: where it came within the second of another it is
    /// signed once more.
    async fn order(&self, api: &ApiClient, mut order: Value) -> Result<Value> {
        order["environment"] = self.environment.clone().unwrap_or_default().into();
        let path = path(&self.repository, "/values")?;
        for _ in 1..AGAIN {
            let answer = api.try_post_json(&path, &order).await?;
            if answer.status() != reqwest::StatusCode::CONFLICT {
                return Ok(api.checked(answer).await?.json().await?);
            }
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        Ok(api.post_json(&path, &order).await?.json().await?)
    }

    fn shown(&self, answer: &Value) -> String {
        match answer["environment"].as_str().unwrap_or_default() {
            "" => printable(&text(answer, "name")),
            environment => {
                format!("{} of the environment {}", printable(&text(answer, "name")), printable(environment))
            }
        }
    }
}

/// A path of the API below a repository.
pub(crate) fn path(repository: &str, end: &str) -> Result<String> {
    let address = submit::repository(repository)?.address;
    let address: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
    Ok(format!("/api/repositories/{}{end}", address.replace('+', "%20")))
}

/// The value from standard input, or asked for where that is a terminal. One line break at its end is left off.
#[allow(clippy::print_stderr)]
fn value(kind: &str, name: &str) -> Result<Zeroizing<String>> {
    let mut value = Zeroizing::new(String::new());
    if std::io::stdin().is_terminal() {
        eprint!("Value of the {kind} {name} (it is not shown): ");
        value = Zeroizing::new(console::Term::stderr().read_secure_line().context("the value can't be read")?);
    } else {
        let read = std::io::stdin().take(MOST + 3).read_to_string(&mut value);
        read.context("the value on standard input is no text: encode it, for example with `base64`")?;
    }
    let bare = value.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    if let Some(length) = bare.map(str::len) {
        value.truncate(length);
    }
    if value.is_empty() {
        bail!("no value came on standard input: `printf %s VALUE | longshore {kind} set {name}`");
    }
    ensure!(value.len() as u64 <= MOST, "the value has more than {} KiB", MOST >> 10);
    Ok(value)
}

/// Encrypted for the pool.
async fn sealed(api: &ApiClient, keys: &Keys, name: &str, value: &str) -> Result<String> {
    let pool: Value = api.get("/api/pool").await?;
    let pool = pool["pubkey"].as_str().and_then(|key| PublicKey::from_hex(key).ok());
    let pool = pool.with_context(|| format!("{} does not say what its key is: is it a coordinator?", api.base()))?;
    let sealed = nip44::encrypt(keys.secret_key(), &pool, value, nip44::Version::V2);
    sealed.with_context(|| format!("cannot encrypt {name}"))
}

#[allow(clippy::print_stdout)]
fn print_list(kind: &str, listed: &Value) {
    let mut columns = vec![Column::whole("NAME"), Column::whole("ENVIRONMENT")];
    if kind == "variable" {
        columns.push(Column::text("VALUE"));
    }
    columns.extend([Column::text("SET BY"), Column::whole("WHEN")]);
    let row = |one: &Value| {
        let mut row = vec![printable(&text(one, "name")), printable(&text(one, "environment"))];
        if kind == "variable" {
            row.push(printable(&text(one, "value")));
        }
        let at = Timestamp::from(one["set_at"].as_u64().unwrap_or_default()).to_human_datetime();
        row.extend([short(&text(one, "author")), at]);
        row
    };
    let rows: Vec<_> = listed.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
}
