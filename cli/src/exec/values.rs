//! Values that a run is given on the command line: inputs, variables, secrets, a payload.

use std::{collections::BTreeMap, io::IsTerminal as _, path::PathBuf};

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use secrecy::SecretString;

/// One NAME=VALUE of the command line.
pub(crate) fn pair(item: &str) -> Result<(String, String), String> {
    let (name, value) = item.split_once('=').ok_or("there is no = in it")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Each NAME=VALUE that a flag was given.
pub(super) fn pairs(flag: &str, items: &[String]) -> Result<IndexMap<String, String>> {
    let split = |item: &String| {
        let (name, value) = item.split_once('=').with_context(|| format!("{flag} {item:?}: expected NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    items.iter().map(split).collect()
}

/// A JSON file.
pub(super) fn read_json(path: &PathBuf) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))
}

/// Secrets of a file, and those named, whose values the environment has or somebody types.
pub(super) fn secrets(file: Option<&PathBuf>, names: &[String]) -> Result<BTreeMap<String, SecretString>> {
    let mut secrets = BTreeMap::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let place = || format!("{}:{}: expected NAME=VALUE", path.display(), number + 1);
            let (name, value) = line.split_once('=').with_context(place)?;
            secrets.insert(name.trim().to_owned(), SecretString::from(value.to_owned()));
        }
    }
    for name in names {
        ensure!(!name.contains('='), "--secret takes a name alone: a value on the command line is seen by everybody");
        let value = match std::env::var(name) {
            Ok(value) => value,
            Err(_) => prompt(name)?,
        };
        secrets.insert(name.clone(), SecretString::from(value));
    }
    Ok(secrets)
}

#[allow(clippy::print_stderr)]
fn prompt(name: &str) -> Result<String> {
    ensure!(std::io::stdin().is_terminal(), "--secret {name}: the environment has no {name}, and nobody can be asked");
    eprint!("{name}: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).with_context(|| format!("cannot read {name}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
