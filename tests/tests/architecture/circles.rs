//! Which files of a package import each other, directly or through others. A file and those below it belong together.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

/// The place of a module in its package: its name behind those of the modules it stands in.
type Module = Vec<String>;

/// Circles of imports between the files of a package: path below its `src`, text.
pub(super) fn circles(files: &[(String, String)]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Module, &str> = files.iter().map(|(path, text)| (module(path), text.as_str())).collect();
    let edges: BTreeMap<&Module, BTreeSet<Module>> =
        modules.iter().map(|(own, text)| (own, imports(own, text, &modules))).collect();
    let mut circles = BTreeSet::new();
    for start in modules.keys() {
        let from_start = reachable(start, &edges);
        let circle: Vec<String> = from_start
            .iter()
            .filter(|other| reachable(other, &edges).contains(start))
            .map(|module| module.join("/"))
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn module(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    if path == "lib" || path == "main" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Files that a file names in its code, tests aside, other than those above and below it.
fn imports(own: &Module, text: &str, modules: &BTreeMap<Module, &str>) -> BTreeSet<Module> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let uses = Regex::new(r"\buse ((?:crate|super|self)::[^;]*);").unwrap();
    let paths = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+").unwrap();
    let used = uses.captures_iter(&code).flat_map(|found| expanded(&found[1]));
    let named = paths.find_iter(&code).map(|found| found.as_str().to_owned());
    let targets = used.chain(named).map(|path| target(own, &path, modules));
    targets.filter(|target| !own.starts_with(target) && !target.starts_with(own)).collect()
}

/// The paths of a `use` with braces.
fn expanded(path: &str) -> Vec<String> {
    let path = path.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let (mut depth, mut parts) = (0_i32, vec![String::new()]);
    for letter in inside.chars() {
        depth += match letter {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        match (letter, depth) {
            (',', 0) => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(letter),
        }
    }
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expanded(&format!("{before}{}", part.trim())))
        .collect()
}

/// The file that a path leads into.
fn target(own: &Module, path: &str, modules: &BTreeMap<Module, &str>) -> Module {
    let mut full = own.clone();
    for part in path.split("::") {
        match part {
            "crate" => full.clear(),
            "self" => {}
            "super" => drop(full.pop()),
            name => full.push(name.to_owned()),
        }
    }
    while !modules.contains_key(&full) && full.pop().is_some() {}
    full
}

fn reachable(from: &Module, edges: &BTreeMap<&Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.clone()];
    while let Some(next) = open.pop() {
        for target in edges.get(&next).into_iter().flatten() {
            if found.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    found
}
