//! Names stay the field's: what had a private name is not defined under it again, and a package has no two public types
//! of one name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use regex::Regex;

#[path = "names/retired.rs"]
mod retired;

use retired::{EXCEPTIONS, FUNCTIONS, MODULES, TYPES};

/// Folders of the product's code.
const PRODUCT: [&str; 6] = ["proto/src", "workflow/src", "coordinator", "worker/src", "worker/init/src", "cli/src"];

/// A type name that a package may have several times, with the reason.
const HOMONYMS: [(&str, &str, &str); 1] =
    [("cli", "Args", "clap's convention: the arguments of one command, always named with the command's module")];

/// Places where a protocol's name belongs.
const HIVE_CI: [&str; 4] = [
    "coordinator/nostr/src/protocol/hive_ci",
    "coordinator/nostr/tests",
    "coordinator/config",
    "cli/src/client/hive_ci",
];

/// What a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Module,
    Type,
    Function,
}

/// A name that a file defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Definition {
    kind: Kind,
    name: String,
    path: String,
    public: bool,
}

#[test]
fn a_retired_name_is_not_defined_again() {
    let mut wrong = BTreeSet::new();
    let mut used = BTreeSet::new();
    for found in definitions(&PRODUCT) {
        let retired = match found.kind {
            Kind::Module => MODULES,
            Kind::Type => TYPES,
            Kind::Function => FUNCTIONS,
        };
        let again = |(name, within, _): &&(&str, &str, &str)| found.name == *name && found.path.starts_with(within);
        let Some((name, _, instead)) = retired.iter().find(again) else { continue };
        match EXCEPTIONS.iter().find(|(known, place, _)| known == name && found.path.starts_with(place)) {
            Some(exception) => drop(used.insert(exception)),
            None => drop(wrong.insert(format!("{}: {:?} `{name}`; the term is {instead}", found.path, found.kind))),
        }
    }
    let idle = EXCEPTIONS.iter().filter(|exception| !used.contains(exception));
    wrong.extend(idle.map(|(name, place, _)| format!("the exception for `{name}` in {place} is needed no more")));
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn every_exception_has_a_reason() {
    assert!(EXCEPTIONS.iter().all(|(_, _, reason)| reason.len() > 10));
    assert!(HOMONYMS.iter().all(|(_, _, reason)| reason.len() > 10));
}

#[test]
fn no_two_public_types_of_a_package_have_one_name() {
    let mut places: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for found in definitions(&PRODUCT).into_iter().filter(|found| found.public && found.kind == Kind::Type) {
        places.entry((package(&found.path), found.name)).or_default().insert(found.path);
    }
    let allowed = |package: &str, name: &str| HOMONYMS.iter().any(|(of, known, _)| *of == package && *known == name);
    let twice = places.iter().filter(|((package, name), places)| places.len() > 1 && !allowed(package, name));
    let wrong: BTreeSet<String> = twice
        .map(|((_, name), places)| format!("{name}: {}", places.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn a_protocols_name_stands_in_its_module_and_in_configuration_alone() {
    let name = Regex::new("(?i)hive.?ci").unwrap();
    let elsewhere =
        rust_files(&PRODUCT).into_iter().filter(|(path, _)| !HIVE_CI.iter().any(|place| path.starts_with(place)));
    let wrong: BTreeSet<String> = elsewhere
        .flat_map(|(path, text)| {
            let named = |(_, line): &(usize, &str)| name.is_match(line) && !joins(line);
            let found = text.lines().enumerate().filter(named);
            found.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn the_documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let code = Regex::new(r"`((?:proto|workflow|coordinator|worker|cli|tests|docs|deploy)/[^`\s]*)`").unwrap();
    let link = Regex::new(r"\]\(([^)#:]+)\)").unwrap();
    let mut missing = BTreeSet::new();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let named = code.captures_iter(&text).chain(link.captures_iter(&text)).map(|found| found[1].to_owned());
        let gone = named.flat_map(|path| alternatives(&path)).filter(|path| !root.join(path).exists());
        missing.extend(gone.map(|path| format!("{document}: {path}")));
    }
    assert!(missing.is_empty(), "{}", lines(&missing));
}

#[test]
fn definitions_are_told_from_uses() {
    let text = "pub(crate) struct Seat<'a> {\n  desk: Desk,\n}\n// struct Board\nfn tell() { let lane = 1; }\nmod ship;\n    pub async fn hear() {}\n";
    let found: Vec<_> = definitions_in("worker/src/link.rs", text).into_iter().map(|one| one.name).collect();
    assert_eq!(found, ["link", "Seat", "tell", "ship", "hear"]);
    assert_eq!(alternatives("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert_eq!(package("coordinator/store/src/read.rs"), "coordinator/store");
    assert_eq!(package("worker/init/src/main.rs"), "worker/init");
}

/// Whether a line only joins the protocol's module to the rest.
fn joins(line: &str) -> bool {
    let line = line.trim();
    ["mod hive_ci;", "pub mod hive_ci;", "pub(crate) mod hive_ci;"].contains(&line) || line.contains("hive_ci::")
}

/// The paths that one with alternatives in braces stands for.
fn alternatives(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (list, after))) => list.split(',').map(|one| format!("{before}{one}{after}")).collect(),
        None => vec![path.to_owned()],
    }
}

/// Whether a file holds tests, or what only tests use.
fn is_test(path: &str) -> bool {
    let stem = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
    path.contains("/tests/") || ["tests", "testing", "properties", "simulation"].contains(&stem.as_str())
}

/// The workspace package that a file belongs to.
fn package(path: &str) -> String {
    let deep = path.starts_with("coordinator/") || path.starts_with("worker/init/");
    path.split('/').take(if deep { 2 } else { 1 }).collect::<Vec<_>>().join("/")
}

fn definitions(folders: &[&str]) -> Vec<Definition> {
    rust_files(folders).iter().flat_map(|(path, text)| definitions_in(path, text)).collect()
}

/// The module that a file is, and the modules, types and functions that it defines, outside of its tests.
fn definitions_in(path: &str, text: &str) -> Vec<Definition> {
    let item =
        r"(?m)^\s*(pub(?:\([^)]*\))? )?(?:async |const |unsafe |default )*(mod|struct|enum|union|trait|type|fn) (\w+)";
    let item = Regex::new(item).unwrap();
    let stem = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
    let mut found = vec![Definition { kind: Kind::Module, name: stem, path: path.to_owned(), public: false }];
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    found.extend(item.captures_iter(code).map(|captures| Definition {
        kind: match &captures[2] {
            "mod" => Kind::Module,
            "fn" => Kind::Function,
            _ => Kind::Type,
        },
        name: captures[3].to_owned(),
        path: path.to_owned(),
        public: captures.get(1).is_some(),
    }));
    found
}

/// Rust files of the product below some folders, tests aside: path in the repository, text.
fn rust_files(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let all = folders.iter().flat_map(|folder| files(&root.join(folder)));
    let rust: Vec<_> = all
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| (path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), path))
        .filter(|(shown, _)| !is_test(shown))
        .map(|(shown, path)| (shown, std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(!rust.is_empty(), "no Rust file below {folders:?}: the test looks in the wrong place");
    rust
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn lines(all: &BTreeSet<String>) -> String {
    all.iter().cloned().collect::<Vec<_>>().join("\n")
}
