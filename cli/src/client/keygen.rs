//! `longshore keygen`: the keys of a new pool, and configurations that explain themselves.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use config::keys::{Keys, make_keys, write_new};
use nostr::{PublicKey, ToBech32};

/// Relays that the Budabit client always uses: a new pool that listens elsewhere hears no press of its button.
const RELAYS: [&str; 5] = [
    "wss://relay.budabit.club",
    "wss://nos.lol",
    "wss://relay.damus.io",
    "wss://relay.nostr.band",
    "wss://relay.primal.net",
];
/// Where clients look up who somebody is and which relays they use.
const INDEXES: [&str; 2] = ["wss://purplepag.es", "wss://index.hzrd149.com"];

/// Make the keys of a new pool, and write coordinator.toml and worker.toml
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for keys and configurations; nothing in it is overwritten.
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Host names and addresses by which workers reach the coordinator.
    #[arg(long = "host", value_delimiter = ',', default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
    pub(crate) hosts: Vec<String>,
    /// Base of the URLs in events, e.g. `https://ci.example.org`.
    #[arg(long, default_value = "http://127.0.0.1:7080")]
    pub(crate) public_url: String,
    /// Who may run workflows besides the pool's own key: npub or hex
    #[arg(long = "allow", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Repositories whose owner and maintainers may run workflows: 30617:OWNER:ID, NPUB/ID or naddr
    #[arg(long = "repository", value_delimiter = ',')]
    pub(crate) repositories: Vec<String>,
    /// Print JSON: the keys' public halves and the configurations
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(!args.hosts.is_empty(), "--host needs at least one name or address");
    for name in ["coordinator.toml", "worker.toml"] {
        let path = args.folder.join(name);
        ensure!(!path.exists(), "{} exists: remove it or choose another folder", path.display());
    }
    for repository in &args.repositories {
        let is_known = config::repository_address(repository).is_some();
        ensure!(is_known, "--repository {repository}: write 30617:<owner>:<id>, <npub>/<id> or naddr1…");
    }
    let keys = make_keys(&args.folder, &args.hosts)?;
    let folder = args.folder.canonicalize().with_context(|| format!("folder {}", args.folder.display()))?;
    let (coordinator, worker) = (folder.join("coordinator.toml"), folder.join("worker.toml"));
    let npub = PublicKey::from_hex(&keys.pubkey)?.to_bech32()?;
    write_new(&coordinator, 0o600, &coordinator_toml(args, &folder, &keys, &npub))?;
    write_new(&worker, 0o600, &worker_toml(args, &folder))?;

    if args.json {
        let made = serde_json::json!({
            "pubkey": keys.pubkey.to_string(), "npub": npub, "worker_identity": keys.worker_identity,
            "coordinator": coordinator, "worker": worker,
        });
        std::io::stdout().write_all(format!("{made:#}\n").as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    writeln!(text, "pubkey           {}", keys.pubkey)?;
    writeln!(text, "npub             {npub}")?;
    writeln!(text, "worker identity  {}", keys.worker_identity)?;
    writeln!(text, "coordinator      longshore coordinator --config {}", coordinator.display())?;
    writeln!(text, "worker           longshore worker --config {}", worker.display())?;
    writeln!(text, "Keep {} safe: who has nostr.key is this pool.", folder.display())?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A TOML string.
fn quote(text: impl AsRef<str>) -> String {
    toml::Value::String(text.as_ref().to_owned()).to_string()
}

fn path(folder: &Path, file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    quote(folder.join(name).to_string_lossy())
}

fn list<T: AsRef<str>>(items: &[T], indent: &str) -> String {
    match items {
        [] => "[]".to_owned(),
        items => {
            let lines: String = items.iter().map(|item| format!("{indent}    {},\n", quote(item))).collect();
            format!("[\n{lines}{indent}]")
        }
    }
}

fn coordinator_toml(args: &Args, folder: &Path, keys: &Keys, npub: &str) -> String {
    let allow: Vec<&str> = std::iter::once(npub).chain(args.allow.iter().map(String::as_str)).collect();
    format!(
        r#"# A Longshore coordinator. Each key can also be given as a flag (--set relays.read=wss://a,wss://b) and in the
# environment (LONGSHORE_RELAYS_READ=wss://a,wss://b). What is not set has the value that its comment names.

# Database, mirrors, logs and blobs.
data = {data}
# Nostr secret key of the pool (nsec or hex). Who has it can sign as the pool.
key_file = {nostr}
# Wraps the secrets of runs; the same file on every coordinator of a pool.
store_key_file = {store}
# How clients list the pool.
name = "longshore"
description = ""
# Dashboard, API, logs and the built-in Blossom endpoint.
http = "127.0.0.1:7080"
# Where the world reaches `http`: the base of every URL in an event.
public_url = {public_url}
# Where workers connect.
grpc = "0.0.0.0:7443"
# Identities of workers. Others join with a one-time token: `longshore workers token`.
workers = {workers}
# Days that a run is kept, with its log and blobs.
keep_days = 90

# Who steers the pool in the page and sees every run: npub or hex.
operators = []

# TLS of the worker port; workers check it with ca.pem.
[tls]
certificate = {certificate}
key = {key}

[relays]
# Job events come from here. These are the relays that the Budabit client always uses.
read = {read}
# Results go here; at least one must take each event.
write = {read}
# These get the pool's advertisement (10100) and relay list (10002) besides, so that clients find them.
index = {index}
# Asked for repositories, besides the hints in events and their owners' relays.
lookup = []
# Relays named by events may be on loopback and private addresses: for development.
allow_private = false

# Who may run workflows: programs of their choice on the workers of this pool. Nobody else may. Of the others so many are
# told so in a minute as limits.refusals_per_minute says.
[policy]
# Keys: npub or hex. The first is the pool's own (nostr.key): add yours.
pubkeys = {allow}
# Owner and maintainers of the repositories that are named below, each for those alone.
maintainers = true
# Repositories: 30617:<owner>:<id>, <npub>/<id> or naddr1…, e.g.
# repositories = ["npub1…/my-project"]
repositories = {repositories}
# Keys, npub or hex: maintainers of each repository that one of them announces.
owners = []
# An NIP-51 list of keys: `30000:<hex>:<d>` or naddr.
# list = ""
# Every stranger: for development, and for pools that are meant to be open to the world.
everyone = false
# Seconds that a run may take.
max_duration = 3600
# Label of the workers that run plain Loom commands: jobs that name a program and no workflow. Empty: they are refused.
command_label = ""

[queue]
# Seconds after which a job is given up whose labels no worker has.
unmatched = 3600
# Seconds that the first half of a request waits for the other; a fifth of it where its author is not known here.
pair = 600

[store]
# The database: postgres://USER:PASSWORD@HOST/DATABASE; empty: a SQLite file in the data folder.
url = ""
# Bytes that must be free on the disk of the data folder. With less, new runs are refused and /readyz says so.
min_free = 67_108_864

# What jobs leave for later ones, and for people.
[kept]
# Bytes of all caches of one repository; beyond them the least recently used go. Days that one is kept unused.
cache_bytes = 10_737_418_240
cache_days = 7
# Bytes of all artifacts of one run. Days that they are kept, at most and where their job does not say.
artifact_bytes = 10_737_418_240
artifact_days = 90
# Bytes of all artifacts of one repository, and of the runs that one author asked for. Beyond them an upload is refused.
# Runs of outsiders and of unproven commits count for their author alone, and have a tenth of that.
artifact_bytes_per_repository = 53_687_091_200
artifact_bytes_per_author = 53_687_091_200
# Bytes that uploads of jobs leave free on the disk of the data folder.
min_free = 1_073_741_824

# Bytes that everything of a kind may take. Beyond them the oldest goes, whatever its age: logs of the runs that ended
# longest ago, mirrors and caches of all repositories that were unused longest.
[retention]
log_bytes = 21_474_836_480
mirror_bytes = 21_474_836_480
cache_bytes = 53_687_091_200
artifact_bytes = 107_374_182_400

[retry]
# A job whose worker was lost after its first step began is tried again: "harmless" (only where it was given no
# secret), "always" or "never".
started = "harmless"

# What may come in. Beyond it a request is refused with a reason.
[limits]
event_bytes = 524288
event_tags = 2000
env_pairs = 500
env_value = 65536
# Requests for each author.
author_per_minute = 30
# Refusals that go to authors who are not known here, all of them together. Others are counted and not answered.
refusals_per_minute = 30
workflow_bytes = 1048576
# Seconds that an event's time may be ahead of our clock, and behind it.
ahead = 60
age = 259200
# Connections at a time, of both ports, and of one address (of IPv6: a /64). When all are taken, a new client gets one of
# the client that has most. Workers that have registered and trusted proxies do not count for their address.
connections = 4096
connections_per_address = 256
# Event streams and whole logs sent at a time, and to one client.
streams = 1024
streams_per_address = 64
# Bytes of the log of one attempt, and jobs that one worker may have at a time, whatever the worker says.
log_bytes = 1_073_741_824
worker_slots = 256

[web]
# Addresses or networks of reverse proxies, e.g. "127.0.0.1": they say in `X-Forwarded-For` or `Forwarded` who the client
# is. Without this all who come through a proxy count as one client.
trusted_proxies = []

[blossom]
# Servers that get public logs, besides the built-in endpoint.
servers = []
# Keys that may upload to the built-in endpoint: npub or hex.
writers = []
# Bytes of one upload, and of all. Publisher keys of runs may upload too: one as much as one upload may have, all together
# half of all.
max_blob = 67108864
max_total = 10737418240

[source]
# Maintainers named by maintainers count too, as in ngit.
recursive_maintainers = true
# Seconds to wait for objects that a state event announced, and for one git command.
wait = 600
command = 120
# Bytes of one fetch; files, folders and bytes of a repository whose files a workflow uses.
fetch_bytes = 2_147_483_648
tree_entries = 500_000
tree_bytes = 4_294_967_296
# Bytes of the disk's free space that no fetch takes.
min_free = 1_073_741_824
# Clone URLs on loopback and private addresses, and file:// ones: for development.
allow_private = false
allow_file = false

# Where `uses: owner/repo@ref` is looked for.
[actions]
# Git servers in their order; the next is asked only where the one before says that it has no such repository.
bases = ["https://github.com"]

# What is asked for one repository instead: a URL, or a Nostr repository address.
[actions.mirrors]
# "actions/setup-node" = "https://git.example.org/mirrors/setup-node"

# The events of NIP-C1: nothing of them is published before a maintainer asks for it, or a repository is named here.
[nip_c1]
# Maintainers of repositories for which they may run may ask for runs by kind 9840, and for all runs of a repository to be
# reported job by job (9843) until they stop it (9844).
requests = true
# Repositories all of whose runs are reported job by job: 30617:<owner>:<id>, <npub>/<id> or naddr1….
repositories = []
# In a pool where everybody may run: repositories of one owner that those may have served whom the policy does not know, and
# repositories of all owners together.
requests_of_owner = 20
requests_in_all = 1000

# Workflow files that are events of a repository's maintainers (kind 35417): "off", "missing-only" (they stand for a
# file where the commit has none) or "override". A repository may say so for itself in .github/longshore.yml.
[definitions]
policy = "missing-only"

# Repositories whose pushes start workflows: 30617:<owner>:<id>, <npub>/<id> or naddr1…; `longshore repository add` names
# others. Of the folders below the first counts that has workflows.
[triggers]
repositories = []
folders = [".ngit/act/workflows", ".github/workflows", ".ngit/workflows"]

# Who may read the runs of a repository (`30617:<owner hex>:<d>`, `<npub>/<d>`, or `*` for all others); without an
# entry: everybody.
# [repositories."*"]
# visibility = "readers"
# readers = []
# maintainers = true
# definitions = "override"
# Keys that count like a maintainer's: watchers, and people who press "run".
# trusted = []

# What holds a job back that names an `environment:`, before it starts; the first entry that fits counts. Approvers are
# keys (npub or hex); without them the repository's maintainers are asked, with an empty list nobody is.
# [[environments]]
# repository = "*"
# name = "production*"
# approvers = ["npub1…"]
# wait_minutes = 0
# branches = ["main", "v*"]

# Who is told of runs and jobs over HTTP; without `events`: of all.
# [[webhooks]]
# url = "https://chat.example.org/hooks/ci"
# secret = "at least 16 bytes: openssl rand -hex 32"
# events = ["run.queued", "run.running", "job.completed", "run.completed"]
"#,
        data = quote(folder.join("data").to_string_lossy()),
        nostr = path(folder, &keys.nostr),
        store = path(folder, &keys.store),
        public_url = quote(&args.public_url),
        workers = list(std::slice::from_ref(&keys.worker_identity), ""),
        certificate = path(folder, &keys.tls.certificate),
        key = path(folder, &keys.tls.key),
        read = list(&RELAYS, ""),
        index = list(&INDEXES, ""),
        allow = list(&allow, ""),
        repositories = list(&args.repositories, ""),
    )
}

fn worker_toml(args: &Args, folder: &Path) -> String {
    let host = args.hosts.first().map_or("localhost", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!(
        r#"# A Longshore worker. Copy this file, worker.key and ca.pem to the worker's machine; each further worker needs a
# key of its own. Each key can also be given as a flag (--set slots=4) and in the environment (LONGSHORE_SLOTS=4).

# The coordinator's worker port.
coordinator = {coordinator}
# Proves the coordinator to this worker.
ca_file = {ca}
# Proves this worker to the coordinator.
identity_file = {identity}
# For a worker that the coordinator does not know yet: what `longshore workers token` printed.
# token = ""
# How operators see it.
name = "worker-1"
# Jobs at a time.
slots = 2
# Mirrors of repositories, logs on their way, and the journal of running jobs.
data = {data}
# "docker", or "host" for trusted jobs without any isolation.
sandbox = "docker"
# Node.js for images that have none, one program that runs by itself: JavaScript actions need it.
# node = "/usr/local/bin/node"

# Images of the engine that every job may name, besides those of [labels], e.g. ["tools:1", "team/*"]. Any other image
# goes to a job to whom its registry gives it.
local_images = []
# Registries in this network that every job may name images of, e.g. ["registry.local:5000"]. All others need a public
# address.
private_registries = []

# What `runs-on` may name here, and the image that each stands for.
[labels]
ubuntu-latest = "catthehacker/ubuntu:act-latest"
"ubuntu-24.04" = "catthehacker/ubuntu:act-latest"
"ubuntu-22.04" = "catthehacker/ubuntu:act-latest"

# Runtimes of the engine for jobs of these labels, e.g. a label "gvisor" with runtime "runsc".
[runtimes]

[pool]
# Containers kept ready for each image; each serves one job.
size = 1

# Limits of one job.
[limits]
# Bytes.
memory = 4294967296
# CPUs. 0: the machine's cores divided by `slots`, at least one.
cpus = 0.0
# Processes and threads.
processes = 4096
# Bytes of log.
log = 268435456
# Minutes, where the workflow names none.
timeout_minutes = 360
# Bytes of disk. 0: any number.
disk = 17179869184
# Bytes of memory for the process that serves a job outside of its container: checkout, actions, archives, log.
process_memory = 536870912

# The disk that jobs share.
[disk]
# Bytes that stay free on the engine's disk and on that of `data`: below them the job ends that uses most.
min_free = 1073741824
# Bytes of images pulled for jobs, and of images built for them: those go first that were unused longest. 0: any number.
image_bytes = 53687091200
# Bytes of mirrors of repositories: those go first that were unused longest.
mirror_bytes = 21474836480
# Volumes of jobs are file systems of `limits.disk` bytes where this machine can make them (root, loop devices, e2fsprogs).
fixed_volumes = true
"#,
        coordinator = quote(format!("https://{host}:7443")),
        ca = quote(folder.join("ca.pem").to_string_lossy()),
        identity = quote(folder.join("worker.key").to_string_lossy()),
        data = quote(folder.join("worker-data").to_string_lossy()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use config::load::{Given, load};

    use super::*;

    #[test]
    fn what_keygen_writes_works_as_it_is_names_every_key_and_hears_the_clients_relays() {
        let folder = tempfile::tempdir().unwrap();
        let friend = nostr::Keys::generate().public_key().to_bech32().unwrap();
        let args = Args {
            folder: folder.path().to_owned(),
            hosts: vec!["ci.example.org".into()],
            public_url: "https://ci.example.org".into(),
            allow: vec![friend.clone()],
            repositories: vec![format!("{friend}/project")],
            json: false,
        };
        run(&args).unwrap();
        let given = |name: &'static str| folder.path().join(name);

        let file = given("coordinator.toml");
        let complete = config::Config::complete();
        let config = load(&complete, &Given { file: Some(&file), ..Given::default() }).unwrap().config;
        assert_eq!(config.check().unwrap(), Vec::<String>::new());
        assert_eq!(config.relays.read, RELAYS);
        assert_eq!(config.relays.write, RELAYS);
        assert_eq!(config.relays.index, INDEXES);
        assert!(config.tls.is_some() && config.workers.len() == 1);
        let pool = config::keys::read_nostr_key(&config.key_file).unwrap().public_key().to_bech32().unwrap();
        assert!(!config.policy.is_open() && config.policy.pubkeys == [pool, friend.clone()]);
        assert_eq!(config.policy.addresses().unwrap().len(), 1);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_keys_named("", &toml::Table::try_from(complete).unwrap(), &text);

        let file = given("worker.toml");
        let complete = worker::config::Config::complete();
        let config = load(&complete, &Given { file: Some(&file), ..Given::default() }).unwrap().config;
        assert_eq!(config.check().unwrap(), Vec::<String>::new());
        assert_eq!(config.coordinator, "https://ci.example.org:7443");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_keys_named("", &toml::Table::try_from(complete).unwrap(), &text);

        let again = format!("{:#}", run(&args).unwrap_err());
        assert!(again.contains("coordinator.toml exists"), "{again}");
    }

    /// `within` is the table's own name with a dot behind it, or nothing for the outermost.
    fn assert_keys_named(within: &str, table: &toml::Table, text: &str) {
        for (key, value) in table {
            let table = format!("[{within}{key}");
            let list = format!("# [{table}]]");
            let named = [format!("{key} ="), format!("# {key} ="), format!("{table}]"), format!("# {table}."), list];
            let is_named = named.iter().any(|start| text.lines().any(|line| line.starts_with(start)));
            assert!(is_named || key.starts_with("ubuntu-"), "`{key}` is not explained");
            if let Some(table) = value.as_table() {
                assert_keys_named(&format!("{within}{key}."), table, text);
            }
        }
    }
}
