//! Names that may have been meant by one that is unknown.

/// The longest name that is compared: what is longer is no slip of the pen, and costs.
const MAX_LENGTH: usize = 64;

/// The name among `known` that is written most like `text`, where one is close enough to be meant.
#[must_use]
pub fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let folded = fold(text);
    let close = |name: &&str| name.len() <= MAX_LENGTH;
    known
        .into_iter()
        .filter(close)
        .map(|name| (distance(&folded, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(text.len()) + 1).div_euclid(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// What to say about it.
#[must_use]
pub fn suggestion<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(text, known).map(|name| format!("did you mean `{name}`?"))
}

/// Some of the names, for people.
#[must_use]
pub fn listed<'k>(names: impl IntoIterator<Item = &'k str>) -> String {
    const SHOWN: usize = 12;
    let mut names = names.into_iter();
    let mut text = names.by_ref().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.next().is_some() {
        text.push_str(", …");
    }
    text
}

/// Words that begin alike are closer than their length says: `timeout` means `timeout-minutes`.
fn distance(folded: &str, name: &str) -> usize {
    let name = fold(name);
    let begins = folded.len() >= 4 && name.strip_prefix(folded).is_some_and(|rest| rest.starts_with('-'));
    if begins { 2 } else { strsim::damerau_levenshtein(folded, &name) }
}

/// Case, and which sign joins words, are no differences worth counting.
fn fold(text: &str) -> String {
    text.to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let keys = ["runs-on", "timeout-minutes", "run", "uses", "fetch-depth"];
        for (text, expected) in [
            ("run-on", Some("runs-on")),
            ("timeout", Some("timeout-minutes")),
            ("runs", Some("run")),
            ("fetch_depth", Some("fetch-depth")),
            ("FETCH-DEPT", Some("fetch-depth")),
            ("colour", None),
        ] {
            assert_eq!(nearest(text, keys), expected, "{text}");
        }
        assert_eq!(nearest(&"a".repeat(100), [&*"a".repeat(101)]), None, "long names are not compared");
    }
}
