//! What a repository says for itself, in [`PATH`] at a commit that its maintainers stand for.

use workflow::dialect::workflow_folders;
use workflow::yaml::{self, MergeKeys, YamlLimits, YamlNode};

use config::Definitions;
use nostr::PublicKey;

/// Where it stands.
pub const PATH: &str = ".github/longshore.yml";

/// Patterns of one key.
const PATTERNS: usize = 20;
/// A small file.
const LIMITS: YamlLimits = YamlLimits { bytes: 64 * 1024, depth: 10, nodes: 1000 };

/// A repository's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// What definitions may do; `None`: as the pool has it.
    pub definitions: Option<Definitions>,
    /// Keys (64 hex) whose requests count like a maintainer's.
    pub trusted: Vec<String>,
    /// Folders that may have the workflows which start by themselves, the first before the others; `None`: as the pool
    /// has it.
    pub workflows: Option<Vec<String>>,
    /// Patterns of names of artifacts that hold results of tests, beside `test-results*`.
    pub test_results: Vec<String>,
}

impl RepositoryConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// It says something that it can't say; the text names the place.
    pub fn read(text: &str) -> Result<Self, String> {
        let stream = yaml::read(text, LIMITS, MergeKeys::Keep);
        let at = |span: yaml::Span, why: &str| format!("{PATH}:{}:{}: error: {why}", span.line, span.column);
        if let Some(problem) = stream.problems.first() {
            return Err(at(problem.span, &problem.message));
        }
        let mut own = Self::default();
        let Some(root) = stream.documents.first().filter(|root| !root.is_null()) else { return Ok(own) };
        if root.text().is_some() || !root.items().is_empty() {
            return Err(at(root.span, "expected keys and values, such as `definitions: override`"));
        }
        for (key, value) in root.entries() {
            match key.text() {
                Some("definitions") => {
                    let policy = value
                        .text()
                        .and_then(Definitions::parse)
                        .ok_or_else(|| at(value.span, "`definitions` is `off`, `missing-only` or `override`"))?;
                    own.definitions = Some(policy);
                }
                Some("trusted") => {
                    let wrong = || at(value.span, "`trusted` is a list of keys: give each as npub1… or 64 hex");
                    if value.items().is_empty() {
                        return Err(wrong());
                    }
                    let key = |item: &YamlNode| PublicKey::parse(item.text()?).ok().map(|key| key.to_hex());
                    own.trusted = value.items().iter().map(key).collect::<Option<_>>().ok_or_else(wrong)?;
                }
                Some("workflows") => {
                    let known = workflow_folders();
                    let wrong = || at(value.span, &format!("`workflows` is a list of some of {}", known.join(", ")));
                    if value.items().is_empty() {
                        return Err(wrong());
                    }
                    let folder = |item: &YamlNode| item.text().filter(|text| known.contains(text)).map(str::to_owned);
                    let folders: Option<Vec<String>> = value.items().iter().map(folder).collect();
                    own.workflows = Some(folders.ok_or_else(wrong)?);
                }
                Some("test-results") => {
                    let wrong = || at(value.span, "`test-results` is a list of patterns of names of artifacts");
                    let one = value.text().map(|text| vec![text.to_owned()]);
                    let many = || value.items().iter().map(|item| item.text().map(str::to_owned)).collect();
                    let patterns: Option<Vec<String>> = one.or_else(many);
                    let few = |patterns: &Vec<String>| (1..=PATTERNS).contains(&patterns.len());
                    own.test_results = patterns.filter(few).ok_or_else(wrong)?;
                }
                _ => {
                    let known = "the keys here are `definitions`, `trusted`, `workflows` and `test-results`";
                    return Err(at(key.span, known));
                }
            }
        }
        Ok(own)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_says_what_definitions_may_do_and_a_mistake_is_told_with_its_place() {
        for (text, definitions) in [
            ("", None),
            ("# nothing\n", None),
            ("definitions: off\n", Some(Definitions::Off)),
            ("definitions: missing-only", Some(Definitions::MissingOnly)),
            ("definitions: 'override'", Some(Definitions::Override)),
        ] {
            assert_eq!(RepositoryConfig::read(text).unwrap().definitions, definitions, "{text}");
        }
        for (text, place) in [
            ("definitions: all", ":1:14: error: `definitions` is"),
            ("definitions: [off]", ":1:14: error: `definitions` is"),
            ("\ndefinition: off", ":2:1: error: the keys here"),
            ("workflows: .github/workflows", ":1:12: error: `workflows` is a list"),
            ("workflows: [src]", ":1:12: error: `workflows` is a list"),
            ("trusted: me", ":1:10: error: `trusted` is a list of keys"),
            ("trusted: [npub1me]", ":1:10: error: `trusted` is a list of keys"),
            ("off", ":1:1: error: expected keys"),
            ("a: [", "error"),
        ] {
            let error = RepositoryConfig::read(text).unwrap_err();
            assert!(error.starts_with(PATH) && error.contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn the_operator_or_the_repository_allows_and_the_operators_off_is_final() {
        use Definitions::{MissingOnly, Off, Override};
        // The operator's word, the repository's, and whether a definition stands for a file the commit has, and has not.
        let cases = [
            (Off, None, false, false),
            (Off, Some(Override), false, false),
            (MissingOnly, None, false, true),
            (MissingOnly, Some(Off), false, false),
            (MissingOnly, Some(MissingOnly), false, true),
            (MissingOnly, Some(Override), true, true),
            (Override, None, true, true),
            (Override, Some(MissingOnly), false, true),
            (Override, Some(Off), false, false),
        ];
        for (operator, own, there, missing) in cases {
            let policy = operator.with(own);
            assert_eq!((policy.supply(true), policy.supply(false)), (there, missing), "{operator:?} {own:?}");
        }
    }

    #[test]
    fn a_repository_names_the_artifacts_that_hold_results_of_tests() {
        let read = |text: &str| RepositoryConfig::read(text).map(|own| own.test_results);
        assert_eq!(read("test-results: junit-*").unwrap(), ["junit-*"]);
        assert_eq!(read("test-results: [a, 'b*']").unwrap(), ["a", "b*"]);
        let many = format!("test-results: [{}]", "a, ".repeat(21));
        for wrong in ["test-results: {a: b}", "test-results: [[a]]", &many] {
            assert!(read(wrong).unwrap_err().contains("a list of patterns"), "{wrong}");
        }
    }
}
