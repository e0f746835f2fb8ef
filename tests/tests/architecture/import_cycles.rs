//! Files of one package that import each other in a loop: none of them can be read, tested or moved alone.
//!
//! Only imports between siblings and cousins count. A module and the modules inside it belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::Regex;

use super::{code, lines, rust_files};

/// Loops that still stand: the package's sources and the files of one loop. Remove an entry with the loop it names.
const KNOWN: &[(&str, &[&str])] = &[];

static USE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\buse\s+([^;]*);").unwrap());
static CHILD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);").unwrap());
static INLINE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:crate|super)(?:::\w+)+").unwrap());

/// A module's path below its package's sources, e.g. `["job", "steps"]`; the root is empty.
type Module = Vec<String>;

#[test]
fn no_files_of_a_package_import_each_other_in_a_loop() {
    let mut found = BTreeSet::new();
    for sources in packages() {
        for files in loops(&graph(&sources)) {
            found.insert((sources.clone(), files));
        }
    }
    let within = |(sources, files): &&(String, BTreeSet<String>)| {
        KNOWN.iter().any(|(known, all)| known == sources && files.iter().all(|file| all.contains(&file.as_str())))
    };
    let new: BTreeSet<String> =
        found.iter().filter(|one| !within(one)).map(|(sources, files)| shown(sources, files)).collect();
    assert!(new.is_empty(), "loops of imports:\n{}", lines(&new));
    let gone = KNOWN.iter().filter(|(sources, files)| {
        !found.iter().any(|(known, some)| known == sources && some.iter().all(|file| files.contains(&file.as_str())))
    });
    let gone: BTreeSet<String> = gone.map(|(sources, files)| format!("{sources}: {}", files.join(", "))).collect();
    assert!(gone.is_empty(), "these loops are cut, remove them from KNOWN:\n{}", lines(&gone));
}

fn shown(sources: &str, files: &BTreeSet<String>) -> String {
    format!("{sources}: {}", files.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[test]
fn a_loop_is_found_through_nested_imports_paths_and_reexports() {
    let graph =
        |files: &[(&str, &str)]| edges(&files.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect());
    let direct = graph(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "use crate::{b::{self, B}, x::Y};"),
        ("b.rs", "fn f() -> super::a::A {}"),
    ]);
    assert_eq!(loops(&direct), [["a".to_owned(), "b".to_owned()].into()]);
    let through_parent = graph(&[
        ("lib.rs", "mod a;\nmod b;\nuse self::b::B;"),
        ("a.rs", "use super::B;"),
        ("b.rs", "use crate::a::A;"),
    ]);
    assert_eq!(loops(&through_parent).len(), 1);
    let parent_and_child = graph(&[("a.rs", "mod b;\nuse self::b::B;\nstruct A;"), ("a/b.rs", "use super::A;")]);
    assert!(loops(&parent_and_child).is_empty());
}

/// Folders of sources, one for each package.
fn packages() -> Vec<String> {
    let mut found: Vec<String> = ["proto/src", "workflow/src", "worker/src", "worker/init/src", "cli/src"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    let coordinator: BTreeSet<String> = rust_files(&["coordinator"])
        .into_iter()
        .filter_map(|(path, _)| path.split_once("/src/").map(|(package, _)| format!("{package}/src")))
        .collect();
    found.extend(coordinator);
    found
}

fn graph(sources: &str) -> BTreeMap<Module, BTreeSet<Module>> {
    let files = rust_files(&[sources]).into_iter().filter_map(|(path, text)| {
        let path = path.strip_prefix(sources)?.trim_start_matches('/').to_owned();
        // What a test looks at is its own affair.
        (!path.ends_with("tests.rs") && !path.contains("/tests/")).then(|| (module(&path), text))
    });
    edges(&files.collect())
}

/// `job/steps.rs` is the module `job::steps`.
fn module(path: &str) -> Module {
    match path {
        "lib.rs" | "main.rs" => Vec::new(),
        path => path.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
    }
}

/// Which module imports which.
fn edges(files: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let paths: BTreeMap<&Module, Vec<Module>> =
        files.iter().map(|(module, text)| (module, imported(module, &code(untested(text))))).collect();
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, imports) in &paths {
        let targets = imports.iter().filter_map(|path| target(path, &paths, 0));
        let outside = targets.filter(|target| !target.starts_with(module) && !module.starts_with(target));
        edges.insert((*module).clone(), outside.collect());
    }
    edges
}

/// A file without its tests, which stand at its end.
fn untested(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text, |(before, _)| before)
}

/// The module that defines what a path names, through what modules on the way import themselves.
fn target(path: &[String], paths: &BTreeMap<&Module, Vec<Module>>, depth: usize) -> Option<Module> {
    let known = (0..=path.len()).rev().filter_map(|length| path.get(..length));
    let module = known.map(<[String]>::to_vec).find(|prefix| paths.contains_key(prefix))?;
    let name = path.get(module.len());
    let reexport = name.and_then(|name| {
        let imports = paths.get(&module)?.iter();
        imports.filter(|import| *import != path && import.len() > 1).find(|import| import.last() == Some(name))
    });
    match reexport {
        Some(import) if depth < 5 => target(import, paths, depth + 1).or(Some(module)),
        _ => Some(module),
    }
}

/// Absolute paths of all that a module's code names by `crate::`, `super::` or `self::`.
fn imported(module: &Module, code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let children: BTreeSet<&str> = CHILD.captures_iter(code).filter_map(|child| Some(child.get(1)?.as_str())).collect();
    for tree in USE.captures_iter(code) {
        let tree = tree[1].trim();
        let first = tree.split("::").next().unwrap_or_default();
        if matches!(first, "crate" | "super" | "self") {
            expand(tree, &[], &mut found);
        } else if children.contains(first) {
            // `use child::Name;`
            expand(&format!("self::{tree}"), &[], &mut found);
        }
    }
    // Of `use crate::a::{b, c}` the part before the brace is no import of its own.
    let inline = USE.replace_all(code, "");
    found.extend(INLINE.find_iter(&inline).map(|path| path.as_str().split("::").map(str::to_owned).collect()));
    found.into_iter().filter_map(|path| absolute(module, &path)).collect()
}

/// Leaves of a tree of imports, as written.
fn expand(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (path, inner) = tree.split_once('{').map_or((tree, None), |(path, inner)| (path, Some(inner)));
    let path = path.split(" as ").next().unwrap_or_default();
    let names = path.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "*");
    let mut whole = before.to_vec();
    whole.extend(names.map(str::to_owned));
    let Some(inner) = inner else {
        if whole.last().is_some_and(|last| last == "self") {
            whole.pop();
        }
        return found.push(whole);
    };
    let (mut depth, mut start) = (0_i32, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                expand_some(inner.get(start..at), &whole, found);
                return;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand_some(inner.get(start..at), &whole, found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn expand_some(tree: Option<&str>, before: &[String], found: &mut Vec<Vec<String>>) {
    if let Some(tree) = tree.filter(|tree| !tree.trim().is_empty()) {
        expand(tree, before, found);
    }
}

fn absolute(module: &Module, path: &[String]) -> Option<Module> {
    let mut base = module.clone();
    let mut names = path.iter().peekable();
    match names.peek()?.as_str() {
        "crate" => {
            names.next();
            base.clear();
        }
        "self" => _ = names.next(),
        _ => {
            while names.next_if(|name| *name == "super").is_some() {
                base.pop();
            }
        }
    }
    base.extend(names.cloned());
    Some(base)
}

/// Sets of files that reach each other.
fn loops(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = edges.keys().map(|from| (from, reached(from, edges))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (from, to) in &reach {
        let around = to.iter().filter(|other| *other != from && reach.get(*other).is_some_and(|to| to.contains(from)));
        let mut files: BTreeSet<String> = around.map(|module| module.join("/")).collect();
        if !files.is_empty() {
            files.insert(from.join("/"));
            if !found.contains(&files) {
                found.push(files);
            }
        }
    }
    found
}

fn reached<'e>(from: &Module, edges: &'e BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'e Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = edges.get(from).into_iter().flatten().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(edges.get(module).into_iter().flatten());
        }
    }
    reached
}
