//! The one search field of the list of runs: `status:failure branch:main fix`. Pure.
//!
//! A term before a colon says which field is meant; everything else is searched in names and titles. A value with spaces
//! stands in quotes.

use super::{
    api::{RunQuery, is_address},
    dto::RunSummary,
};
use store::Status;

/// Most words that are searched for.
const WORDS: usize = 5;
/// Longest text of a search, in bytes.
const LONGEST: usize = 500;

impl RunQuery {
    /// With the fields that the search text names in the place of those beside it.
    pub(super) fn resolved(mut self) -> Self {
        let Some(text) = self.q.take().filter(|text| !text.trim().is_empty()) else { return self };
        let mut words = Vec::new();
        for term in terms(&text) {
            let field = match term.split_once(':') {
                Some(("status", value)) => Some((&mut self.status, value)),
                Some(("branch", value)) => Some((&mut self.branch, value)),
                Some(("workflow", value)) => Some((&mut self.workflow, value)),
                Some(("repo", value)) if is_address(value) => Some((&mut self.repository, value)),
                Some(("repo", value)) => Some((&mut self.repository_name, value)),
                Some(("by", value)) => Some((&mut self.actor, value)),
                Some(("event", value)) => Some((&mut self.event, value)),
                Some(("is", "unfinished")) => {
                    self.unfinished = true;
                    continue;
                }
                _ => None,
            };
            match field.filter(|(_, value)| !value.is_empty()) {
                Some((field, value)) => *field = Some(value.to_owned()),
                None => words.push(term),
            }
        }
        words.truncate(WORDS);
        self.text = Some(words.join(" ")).filter(|text| !text.is_empty()).or(self.text);
        self
    }

    /// The text that says the same.
    pub(super) fn search_text(&self) -> String {
        let fields = [
            ("status", &self.status),
            ("branch", &self.branch),
            ("workflow", &self.workflow),
            ("repo", &self.repository),
            ("repo", &self.repository_name),
            ("by", &self.actor),
            ("event", &self.event),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            Some(term(name, value))
        });
        let unfinished = self.unfinished.then(|| "is:unfinished".to_owned());
        given.chain(unfinished).chain(self.text.clone()).collect::<Vec<_>>().join(" ")
    }

    /// The words that are searched in names and titles.
    pub(super) fn search_words(&self) -> Vec<String> {
        self.text.iter().flat_map(|text| text.split_whitespace()).take(WORDS).map(str::to_owned).collect()
    }
}

/// What the field offers: every status, and what the runs on the page have.
pub(super) fn suggestions(runs: &[RunSummary]) -> Vec<String> {
    let mut found: Vec<String> = Status::all().iter().map(|status| term("status", status.as_str())).collect();
    for run in runs {
        let repository = run.repository.splitn(3, ':').nth(2).unwrap_or(&run.repository);
        let fields =
            [("branch", run.branch.as_str()), ("workflow", &run.workflow), ("repo", repository), ("event", &run.event)];
        found.extend(fields.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| term(name, value)));
        found.extend(nostr::PublicKey::parse(&run.actor).ok().and_then(|key| {
            let npub = nostr::ToBech32::to_bech32(&key).ok()?;
            Some(term("by", &npub))
        }));
    }
    let statuses = Status::all().len();
    if let Some(others) = found.get_mut(statuses..) {
        others.sort();
    }
    found.dedup();
    found
}

fn term(name: &str, value: &str) -> String {
    match value.contains(char::is_whitespace) {
        true => format!("{name}:\"{}\"", value.replace('"', "")),
        false => format!("{name}:{value}"),
    }
}

/// The terms of a text; quotes hold spaces together and are left out.
fn terms(text: &str) -> Vec<String> {
    let (mut found, mut term, mut quoted) = (Vec::new(), String::new(), false);
    let end = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    for letter in text.get(..end).unwrap_or_default().chars() {
        match letter {
            '"' => quoted = !quoted,
            _ if letter.is_whitespace() && !quoted => found.push(std::mem::take(&mut term)),
            _ => term.push(letter),
        }
    }
    found.push(term);
    found.retain(|term| !term.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RunQuery {
        RunQuery { q: Some(text.to_owned()), ..RunQuery::default() }.resolved()
    }

    #[test]
    fn a_search_names_fields_and_words_in_any_order_and_reads_back_as_it_was() {
        let found = read("fix status:failure  branch:main workflow:\"my flow.yml\" is:unfinished the:bug status:");
        assert_eq!((found.status.as_deref(), found.branch.as_deref()), (Some("failure"), Some("main")));
        assert_eq!((found.workflow.as_deref(), found.unfinished), (Some("my flow.yml"), true));
        assert_eq!(found.search_words(), ["fix", "the:bug", "status:"], "what names no field is a word");
        let text = "status:failure branch:main workflow:\"my flow.yml\" is:unfinished fix the:bug status:";
        assert_eq!(found.search_text(), text);
        assert_eq!(read(text).search_text(), text);
        assert_eq!(read("  ").search_text(), "");
        let beside = RunQuery {
            q: Some("branch:a".into()),
            branch: Some("b".into()),
            event: Some("push".into()),
            ..RunQuery::default()
        };
        assert_eq!(beside.resolved().search_text(), "branch:a event:push");
        assert_eq!(read(&"ä ".repeat(2000)).search_words().len(), 5);
    }
}
