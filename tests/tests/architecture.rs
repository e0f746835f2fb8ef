//! The architecture holds: who may import whom, who may know which library, how long a file may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Stages of the coordinator. They know what all may know, and themselves; `serve` joins them.
const STAGES: [&str; 9] = ["nostr", "source", "plan", "dispatch", "log", "blob", "origin", "web", "hook"];
/// What each module of the coordinator may import besides itself.
const SHARED: [&str; 6] = ["config", "network", "store", "run", "group", "schedule"];
/// Further edges: the pages are the window on what is stored; jobs store caches and artifacts.
const EDGES: [(&str, &str); 3] = [("web", "log"), ("web", "blob"), ("origin", "blob")];
/// Sources of the product; its tests may look from outside.
const PRODUCT: [&str; 6] = ["proto/src", "workflow/src", "coordinator/src", "worker/src", "worker/init/src", "cli/src"];
/// Lines of one file.
const LONGEST: usize = 600;

/// A library, and the only places where it may be named.
const LIBRARIES: [(&str, &[&str]); 6] = [
    ("nostr_sdk", &["coordinator/src/nostr", "coordinator/src/source", "cli/src/client"]),
    ("sqlx", &["coordinator/src/store"]),
    ("tonic", &["coordinator/src/dispatch", "worker/src/link", "proto/src"]),
    ("bollard", &["worker/src/sandbox/docker"]),
    ("askama", &["coordinator/src/web"]),
    ("axum", &["coordinator/src/web", "coordinator/src/origin"]),
];

#[test]
fn stages_of_the_coordinator_do_not_know_each_other() {
    let mut wrong = BTreeSet::new();
    for (path, text) in rust_files(&["coordinator/src"]) {
        let module = module_of(&path);
        for imported in imports(&code(&text)) {
            if !may_import(&module, &imported) {
                wrong.insert(format!("{path}: {module} → {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "only serve joins the stages:\n{}", lines(&wrong));
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
    let folder = root().join("coordinator/assets/noble");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let listed: BTreeSet<String> = sums.lines().map(str::to_owned).collect();
    let found = files(&folder).into_iter().filter(|path| path.parent() != Some(&folder)).map(|path| {
        let sum = Sha256::digest(std::fs::read(&path).unwrap());
        format!("{}  {}", hex::encode(sum), path.strip_prefix(&folder).unwrap().display())
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), listed);
}

#[test]
fn edges_are_seen_however_they_are_written() {
    let cases: [(&str, &[&str]); 6] = [
        ("use crate::nostr::Intake;", &["nostr"]),
        ("use crate::{config::{Config, Limits}, store, run::{self, Millis}};", &["config", "run", "store"]),
        ("use crate::{\n    blob::Blobs,\n    log as journal,\n};", &["blob", "log"]),
        ("fn f(a: crate::web::Page) -> crate::store::Row { a }", &["store", "web"]),
        ("pub(in crate::web) fn f() {}", &["web"]),
        ("let text = \"x\"; // crate::web is only named\n/// [`crate::blob`]", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(imports(&code(text)), expected.iter().map(|&name| name.to_owned()).collect(), "{text}");
    }
    assert!(!may_import("nostr", "source") && !may_import("store", "web") && may_import("web", "store"));
    assert!(names("use tonic::Status;", "tonic") && names("mod tonic;", "tonic") && !names("tonic_prost", "tonic"));
    assert!(is_within("coordinator/src/store/read.rs", "coordinator/src/store"));
    assert!(is_within("coordinator/src/store.rs", "coordinator/src/store"));
    assert!(!is_within("coordinator/src/storehouse.rs", "coordinator/src/store"));
}

fn may_import(module: &str, imported: &str) -> bool {
    match module {
        "serve" | "lib" => true,
        _ if module == imported || EDGES.contains(&(module, imported)) => true,
        // What all share does not know the stages either.
        _ if STAGES.contains(&module) || SHARED.contains(&module) => SHARED.contains(&imported),
        // A new module is a stage until it is listed.
        _ => false,
    }
}

/// First names after `crate::`, those in a group among them.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, found_text) in code.match_indices("crate::") {
        let preceded = code[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_');
        let rest = &code[at + found_text.len()..];
        if !preceded {
            found.extend(match rest.strip_prefix('{') {
                Some(group) => first_names(group),
                None => name_at(rest).into_iter().collect(),
            });
        }
    }
    found
}

/// Names at the outer level of a `{…}` group, whose first brace is gone.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut names) = (0, String::new(), Vec::new());
    for letter in group.chars() {
        match (letter, depth) {
            ('}', 0) => break,
            (',', 0) => names.extend(name_at(std::mem::take(&mut item).trim())),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                item.push(letter);
            }
        }
    }
    names.extend(name_at(item.trim()));
    names
}

fn name_at(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Whether the code names a library; another whose name begins alike does not count.
fn names(code: &str, library: &str) -> bool {
    Regex::new(&format!(r"\b{library}\b")).unwrap().is_match(code)
}

/// The text without comments that begin a line or follow a blank.
fn code(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    kept.map(|line| line.split(" //").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module of the crate that a file of it belongs to.
fn module_of(path: &str) -> String {
    let inside = path.strip_prefix("coordinator/src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
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
