//! The architecture holds: who may import whom, who may know which library, how long a file may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use regex::Regex;

#[path = "architecture/import_cycles.rs"]
mod import_cycles;

/// What each package of the coordinator may depend on, of ours: its layers, lowest first. `app` joins them.
const PACKAGES: [(&str, &[&str]); 17] = [
    ("domain", &["workflow"]),
    ("network", &[]),
    ("connections", &[]),
    ("config", &["domain", "workflow"]),
    ("store", &["domain", "workflow"]),
    ("work", &["domain", "store"]),
    ("logs", &["domain", "proto", "workflow"]),
    ("blobs", &["domain", "store", "workflow"]),
    ("source", &["config", "domain", "network", "store", "triggers", "workflow"]),
    ("planning", &["config", "domain", "workflow"]),
    ("triggers", &["workflow"]),
    ("nostr", &["config", "domain", "network", "store", "work", "workflow"]),
    ("dispatch", &["config", "connections", "domain", "logs", "proto", "store", "workflow"]),
    ("actions_api", &["blobs", "config", "domain", "store", "workflow"]),
    ("webhooks", &["config", "domain", "network", "store", "work", "workflow"]),
    ("web", &["blobs", "connections", "domain", "logs", "store", "workflow"]),
    (
        "app",
        &[
            "actions-api",
            "blobs",
            "config",
            "connections",
            "dispatch",
            "domain",
            "logs",
            "nostr-client",
            "planning",
            "proto",
            "source",
            "store",
            "telemetry",
            "triggers",
            "web",
            "webhooks",
            "work",
            "workflow",
        ],
    ),
];
/// Sources of the product; its tests may look from outside.
const PRODUCT: [&str; 9] = [
    "proto/src",
    "workflow/src",
    "telemetry/src",
    "zip_reader/src",
    "local_relay/src",
    "coordinator",
    "worker/src",
    "worker/init/src",
    "cli/src",
];
/// Lines of one file.
const LONGEST: usize = 600;

/// A library, and the only places where it may be named.
const LIBRARIES: [(&str, &[&str]); 8] = [
    ("opentelemetry", &["telemetry/src"]),
    ("nostr_sdk", &["coordinator/nostr/tests", "cli/src/client"]),
    ("rusqlite", &["coordinator/store"]),
    ("tokio_postgres", &["coordinator/store"]),
    ("tonic", &["coordinator/dispatch", "worker/src/coordinator_client", "proto/src"]),
    ("bollard", &["worker/src/sandbox/docker"]),
    ("askama", &["coordinator/web"]),
    ("axum", &["coordinator/web", "coordinator/actions_api", "local_relay/src"]),
];

/// Where the modules of a workflow language may be named: these modules, the seams to them, and what `uses:` does, which
/// is GitHub's.
const LANGUAGES: [&str; 5] = [
    "workflow/src/github",
    "workflow/src/dialect",
    "worker/src/github",
    "worker/src/dialect",
    "worker/src/job/actions",
];

/// Packages that a simulation runs: a seed decides all that happens in them.
const SIMULATED: [&str; 4] =
    ["coordinator/domain/src", "coordinator/work/src", "coordinator/dispatch/src", "tests/simulation"];
/// Files of these that draw what nobody may guess.
const CHANCE: [&str; 3] =
    ["coordinator/dispatch/src/auth.rs", "coordinator/dispatch/src/lib.rs", "tests/simulation/src/random.rs"];

#[test]
fn packages_of_the_coordinator_depend_on_lower_ones_alone() {
    let ours: BTreeSet<String> =
        ["workflow", "proto", "telemetry", "worker", "longshore"].map(str::to_owned).into_iter().collect();
    let mut found = BTreeMap::new();
    for folder in std::fs::read_dir(root().join("coordinator")).unwrap() {
        let folder = folder.unwrap().path();
        let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies: Vec<String> = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
        found.insert(folder.file_name().unwrap().to_string_lossy().into_owned(), (name, dependencies));
    }
    let ours: BTreeSet<String> = found.values().map(|(name, _)| name.clone()).chain(ours).collect();
    let mut wrong = BTreeSet::new();
    for (folder, (_, dependencies)) in &found {
        let Some((_, allowed)) = PACKAGES.iter().find(|(listed, _)| listed == folder) else {
            wrong.insert(format!("coordinator/{folder} stands in no layer: list it"));
            continue;
        };
        let beyond = dependencies.iter().filter(|name| ours.contains(*name) && !allowed.contains(&name.as_str()));
        wrong.extend(beyond.map(|name| format!("coordinator/{folder} → {name}")));
    }
    assert!(wrong.is_empty(), "only app joins the packages:\n{}", lines(&wrong));
}

#[test]
fn a_workflow_language_is_known_to_its_own_modules_and_the_seams_to_them() {
    let mut wrong = BTreeSet::new();
    for (path, text) in rust_files(&PRODUCT) {
        if !LANGUAGES.iter().any(|place| is_within(&path, place)) && names_language(&code(&text)) {
            wrong.insert(path);
        }
    }
    assert!(wrong.is_empty(), "these name a workflow language where they may ask `dialect`:\n{}", lines(&wrong));
    assert!(names_language("use workflow::{github, plan};") && names_language("crate::github::uses::inside(x)"));
    assert!(!names_language("let folder = \".github/workflows\"; planned.insert(\"github\", 1);"));
}

#[test]
fn each_library_is_known_to_the_modules_that_are_made_for_it() {
    let mut wrong = BTreeSet::new();
    for (path, text) in rust_files(&PRODUCT) {
        let code = code(&text);
        for (library, places) in LIBRARIES {
            let allowed = places.iter().any(|place| is_within(&path, place));
            if !allowed && names(&code, library) {
                wrong.insert(format!("{path}: {library}, which belongs to {}", places.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn nothing_that_is_simulated_decides_by_chance() {
    let mut wrong = BTreeSet::new();
    for (path, text) in rust_files(&SIMULATED) {
        if !CHANCE.contains(&path.as_str()) && is_by_chance(&code(&text)) {
            wrong.insert(path);
        }
    }
    assert!(wrong.is_empty(), "draw from `fastrand`, and begin `select!` with `biased`:\n{}", lines(&wrong));
    assert!(is_by_chance("rand::random_range(0..2)") && is_by_chance("tokio::select! {\n    () = stopped => {}"));
    assert!(!is_by_chance("fastrand::f64()") && !is_by_chance("tokio::select! {\n    biased;\n    () = stopped => {}"));
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let long = rust_files(&[""]).into_iter().map(|(path, text)| (text.lines().count(), path));
    let long: BTreeSet<String> =
        long.filter(|(count, _)| *count > LONGEST).map(|(count, path)| format!("{path}: {count} lines")).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines:\n{}", lines(&long));
}

#[test]
fn a_module_stands_beside_its_folder() {
    let inside: BTreeSet<String> =
        rust_files(&[""]).into_iter().map(|(path, _)| path).filter(|path| path.ends_with("/mod.rs")).collect();
    assert!(inside.is_empty(), "{}", lines(&inside));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, or this file would be found.
    let private = Regex::new(&[r"(^|[^A-Za-z0-9_.}-])/wo", r"rk/|(^|[^A-Za-z0-9_])\.lib", "rary"].concat()).unwrap();
    let mut found = BTreeSet::new();
    for path in files(&root()) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| private.is_match(line)) {
            found.insert(format!("{}:{}: {}", relative(&path), number + 1, line.trim()));
        }
    }
    assert!(found.is_empty(), "{}", lines(&found));
}

#[test]
fn what_others_wrote_is_kept_as_they_published_it() {
    use sha2::{Digest, Sha256};
    let folder = root().join("coordinator/web/assets/noble");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let listed: BTreeSet<String> = sums.lines().map(str::to_owned).collect();
    let found = files(&folder).into_iter().filter(|path| path.parent() != Some(&folder)).map(|path| {
        let sum = Sha256::digest(std::fs::read(&path).unwrap());
        format!("{}  {}", hex::encode(sum), path.strip_prefix(&folder).unwrap().display())
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), listed);
}

#[test]
fn what_belongs_to_a_place_is_told_apart() {
    assert!(names("use tonic::Status;", "tonic") && names("mod tonic;", "tonic") && !names("tonic_prost", "tonic"));
    assert!(is_within("coordinator/store/src/read.rs", "coordinator/store"));
    assert!(is_within("worker/src/coordinator_client.rs", "worker/src/coordinator_client"));
    assert!(!is_within("coordinator/storehouse/src/lib.rs", "coordinator/store"));
}

/// Whether the code names a library; another whose name begins alike does not count.
fn names(code: &str, library: &str) -> bool {
    Regex::new(&format!(r"\b{library}\b")).unwrap().is_match(code)
}

/// Whether the code takes a decision that a seed of the simulation doesn't.
fn is_by_chance(code: &str) -> bool {
    let branches = Regex::new(r"\bselect! \{\s*(\w*)").unwrap();
    let unordered = branches.captures_iter(code).any(|found| &found[1] != "biased");
    unordered || Regex::new(r"\brand::").unwrap().is_match(code)
}

/// Whether the code names a module of a workflow language.
fn names_language(code: &str) -> bool {
    let path = r"\b(?:github|gitlab)::|::(?:github|gitlab)\b";
    let import = r"\buse [a-z]+::\{[^;]*\b(?:github|gitlab)\b[^;]*;";
    Regex::new(&format!("{path}|{import}")).unwrap().is_match(code)
}

/// The text without comments that begin a line or follow a blank.
fn code(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    kept.map(|line| line.split(" //").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether a file is the module itself or in its folder.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Rust files below some folders of the repository: path in it, text.
fn rust_files(folders: &[&str]) -> Vec<(String, String)> {
    let all = folders.iter().flat_map(|folder| files(&root().join(folder)));
    let rust: Vec<_> = all
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| (relative(&path), std::fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(!rust.is_empty(), "no Rust file below {folders:?}: the test looks in the wrong place");
    rust
}

/// Every file below a folder; what git keeps and what cargo builds are no part of the repository's text.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name == ".git" || name == "target" {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn lines(all: &BTreeSet<String>) -> String {
    all.iter().cloned().collect::<Vec<_>>().join("\n")
}
