//! Reads a configuration: file, environment, flags, each over the one before. Serves every role's configuration.

use std::{fmt, fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Variables of the environment begin with this: `LONGSHORE_RELAYS_READ=wss://a,wss://b` sets `relays.read`.
pub const PREFIX: &str = "LONGSHORE_";
/// Names of the environment that are no keys: flags of other verbs, tests.
const OTHER: &[&str] = &[
    "CONFIG",
    "NO_ENGINE",
    "SEED",
    "SERVER",
    "KEY",
    "LOG",
    "LOG_FORMAT",
    "TEST",
    "NSEC",
    "POOL",
    "RELAY",
    "REPOSITORY",
];

/// What is wrong with a configuration: where, what, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct LoadError {
    /// `FILE:LINE`, the variable, or the flag.
    pub place: String,
    /// For people, with the remedy.
    pub problem: String,
}

/// A configuration with what looked odd on the way.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// For the operator.
    pub warnings: Vec<String>,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Given<'a> {
    /// TOML file; `None`: `base`.
    pub file: Option<&'a Path>,
    /// What differs from the defaults where no file says so.
    pub base: Table,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// `--set key=value` flags, e.g. `relays.read=wss://a`.
    pub sets: &'a [String],
}

/// Reads a configuration. `complete` is one that has a value for every optional key: it tells which keys there are
/// and of which type.
pub fn load<C>(complete: &C, given: &Given<'_>) -> Result<Loaded<C>, LoadError>
where
    C: Serialize + DeserializeOwned,
{
    let known = Table::try_from(complete).map_err(|error| fail("configuration", &error))?;
    let (mut table, mut config) = match given.file {
        Some(path) => read::<C>(path)?,
        None => (given.base.clone(), table_to::<C>(&given.base, "defaults")?),
    };
    let mut warnings = Vec::new();
    let variables =
        given.environment.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)));
    for (name, rest, value) in variables {
        if OTHER.contains(&rest) {
            continue;
        }
        match path_of(&known, rest) {
            Some(path) => {
                set(&mut table, &path, parse(&known, &path, value).map_err(|problem| fail(name, &problem))?, name)?;
                config = table_to(&table, name)?;
            }
            None => warnings.push(format!("{name}: there is no such key; it is ignored")),
        }
    }
    for given in given.sets {
        let place = format!("--set {given}");
        let (key, value) = given.split_once('=').ok_or_else(|| fail(&place, &"write it as key=value"))?;
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        set(&mut table, &path, parse(&known, &path, value).map_err(|problem| fail(&place, &problem))?, &place)?;
        config = table_to(&table, &place)?;
    }
    Ok(Loaded { config, warnings })
}

fn fail(place: &str, problem: &dyn fmt::Display) -> LoadError {
    LoadError { place: place.to_owned(), problem: problem.to_string() }
}

fn read<C: DeserializeOwned>(path: &Path) -> Result<(Table, C), LoadError> {
    let place = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| fail(&place, &format!("{error}; `longshore keygen` writes a configuration")))?;
    let at_line = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        fail(&format!("{place}:{line}"), &explain(error.message()))
    };
    let config = toml::from_str(&text).map_err(at_line)?;
    let table = toml::from_str(&text).map_err(at_line)?;
    Ok((table, config))
}

fn table_to<C: DeserializeOwned>(table: &Table, place: &str) -> Result<C, LoadError> {
    table.clone().try_into().map_err(|error: toml::de::Error| fail(place, &explain(error.message())))
}

/// Serde's message, its list of all keys replaced by the nearest one.
fn explain(message: &str) -> String {
    let Some((unknown, keys)) = message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) else {
        return message.to_owned();
    };
    let unknown = unknown.trim_matches('`');
    // Names stand in backquotes: every second piece.
    let keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
    let near = keys.iter().map(|key| (strsim::jaro_winkler(unknown, key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((likeness, key)) if likeness > 0.7 => format!("unknown key `{unknown}`; did you mean `{key}`?"),
        _ => format!("unknown key `{unknown}`; here are: {}", keys.join(", ")),
    }
}

/// The key a variable means: its parts are joined by `_`, which also stands inside names.
fn path_of(known: &Table, variable: &str) -> Option<Vec<String>> {
    let direct = known.keys().find(|key| key.to_uppercase() == variable).map(|key| vec![key.clone()]);
    direct.or_else(|| {
        known.iter().find_map(|(key, value)| {
            let rest = variable.strip_prefix(&key.to_uppercase())?.strip_prefix('_')?;
            let mut path = path_of(value.as_table()?, rest)?;
            path.insert(0, key.clone());
            Some(path)
        })
    })
}

/// Text as the type that the key has.
fn parse(known: &Table, path: &[String], text: &str) -> Result<Value, String> {
    let expected = |what: &str| format!("`{}` is {what}, not `{text}`", path.join("."));
    let as_toml = || format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match sample(known, path) {
        Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).map_err(|_| expected("true or false")),
        Some(Value::Integer(_)) => text.parse().map(Value::Integer).map_err(|_| expected("a whole number")),
        Some(Value::Float(_)) => text.parse().map(Value::Float).map_err(|_| expected("a number")),
        Some(Value::Array(_)) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Some(Value::Array(_)) => as_toml().ok_or_else(|| expected("a list, such as a,b or [\"a\", \"b\"]")),
        Some(Value::Table(_)) => as_toml().ok_or_else(|| expected("a table, such as { key = \"value\" }")),
        // Keys below a map of the operator's own names: what looks like TOML is taken so.
        None => Ok(as_toml().unwrap_or_else(|| Value::String(text.to_owned()))),
        Some(_) => Ok(Value::String(text.to_owned())),
    }
}

fn sample<'a>(known: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    parents.iter().try_fold(known, |table, key| table.get(key)?.as_table())?.get(last)
}

fn set(table: &mut Table, path: &[String], value: Value, place: &str) -> Result<(), LoadError> {
    let Some((last, parents)) = path.split_last() else { return Ok(()) };
    let mut table = table;
    for key in parents {
        let entry = table.entry(key.as_str()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| fail(place, &format!("`{key}` has no keys below it")))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Config;

    fn from(text: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Loaded<Config>, LoadError> {
        let file = tempfile::NamedTempFile::with_prefix("coordinator").unwrap();
        fs::write(file.path(), text).unwrap();
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        load(&Config::complete(), &Given { file: Some(file.path()), environment, sets: &sets, ..Given::default() })
    }

    #[test]
    fn a_mistake_in_a_file_is_told_with_its_line_and_the_nearest_right_key() {
        for (text, line, problem) in [
            ("name = \"a\"\nhtpp = \"x\"", ":2", "unknown key `htpp`; did you mean `http`?"),
            ("[relays]\nread = []\n\nwrites = []", ":4", "unknown key `writes`; did you mean `write`?"),
            ("[tls]\ncertificat = \"x\"", ":2", "did you mean `certificate`?"),
            ("name = 3", ":1", "expected a string"),
            ("\nname = ", ":2", ""),
            ("[queue]\nqqqq = 3", ":2", "unknown key `qqqq`; here are: unmatched, pair"),
        ] {
            let error = from(text, &[], &[]).unwrap_err();
            assert!(error.place.ends_with(line), "{text}: {error}");
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
        let missing =
            load(&Config::complete(), &Given { file: Some(Path::new("/nowhere/c.toml")), ..Given::default() });
        assert!(missing.unwrap_err().to_string().contains("longshore keygen"));
    }

    #[test]
    fn flags_stand_over_the_environment_and_that_over_the_file() {
        let text = "name = \"file\"\nhttp = \"file:1\"\ngrpc = \"file:2\"";
        let loaded =
            from(text, &[("LONGSHORE_HTTP", "env:1"), ("LONGSHORE_GRPC", "env:2"), ("OTHER", "x")], &["grpc=flag:2"])
                .unwrap();
        assert_eq!((&*loaded.config.name, &*loaded.config.http, &*loaded.config.grpc), ("file", "env:1", "flag:2"));
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn every_key_can_be_set_from_the_environment_and_by_a_flag() {
        fn leaves(table: &Table, path: &str, found: &mut Vec<(String, Value)>) {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match value {
                    Value::Table(table) if !table.is_empty() => leaves(table, &path, found),
                    value => found.push((path, value.clone())),
                }
            }
        }
        let known = Table::try_from(Config::complete()).unwrap();
        let mut found = Vec::new();
        leaves(&known, "", &mut found);
        assert!(found.len() > 40, "{found:?}");
        for (path, value) in found.iter().filter(|(path, _)| path != "repositories") {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // A table of the certificate needs both of its keys.
            let start = "[tls]\ncertificate = \"a\"\nkey = \"b\"\n";
            let name = format!("{PREFIX}{}", path.replace('.', "_").to_uppercase());
            let loaded = from(start, &[(&name, &text)], &[]).unwrap();
            assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
            from(start, &[], &[&format!("{path}={text}")]).unwrap();
        }
    }

    #[test]
    fn lists_numbers_and_the_operators_own_names_are_read_by_their_type() {
        let loaded = from(
            "",
            &[
                ("LONGSHORE_RELAYS_READ", "wss://a, wss://b"),
                ("LONGSHORE_QUEUE_UNMATCHED", "5"),
                ("LONGSHORE_POLICY_MAX_DURATION", "7"),
                ("LONGSHORE_RETRY_STARTED", "always"),
                ("LONGSHORE_HTPP", "x"),
                ("LONGSHORE_CONFIG", "x"),
                ("LONGSHORE_NSEC", "x"),
            ],
            &["repositories.*.visibility=readers", "policy.everyone=true"],
        )
        .unwrap();
        let config = loaded.config;
        assert_eq!(config.relays.read, ["wss://a", "wss://b"]);
        assert_eq!((config.queue.unmatched, config.policy.max_duration), (5, 7));
        assert_eq!(config.repositories["*"].visibility, crate::VisibilityConfig::Readers);
        assert!(config.policy.everyone);
        assert_eq!(loaded.warnings, ["LONGSHORE_HTPP: there is no such key; it is ignored"]);
    }

    #[test]
    fn a_wrong_value_names_where_it_came_from() {
        for (environment, set, place, problem) in [
            (&[("LONGSHORE_KEEP_DAYS", "soon")][..], &[][..], "LONGSHORE_KEEP_DAYS", "a whole number, not `soon`"),
            (&[], &["policy.everyone=yes"], "--set policy.everyone=yes", "true or false"),
            (&[], &["nam=x"], "--set nam=x", "did you mean `name`?"),
            (&[], &["name"], "--set name", "key=value"),
            (&[], &["retry.started=sometimes"], "--set retry.started=sometimes", "unknown variant"),
        ] {
            let error = from("", environment, set).unwrap_err();
            assert_eq!(error.place, place);
            assert!(error.problem.contains(problem), "{error}");
        }
    }
}
