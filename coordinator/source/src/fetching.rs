//! Brings objects from the first of several servers that has them.

use std::time::Duration;

use tokio::time::Instant;

use super::{RepositoryMetadata, RepositoryMirrors, SourceError, git::Mirror};
use domain::id::CommitId;
use network::Reach;

/// An object that is to be fetched.
pub(super) struct WantedObject<'a> {
    /// Its id.
    pub(super) object: &'a str,
    /// Refs that may name it, for servers that give no object by id.
    pub(super) references: &'a [String],
    /// The ref that keeps it here; `None`: one of its own.
    pub(super) into: Option<&'a str>,
    /// When the servers have had their time.
    pub(super) until: Instant,
}

impl RepositoryMirrors {
    /// When the clone URLs of a repository have had their time: servers that never finish must not hold up the plans of
    /// others.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.settings.command).saturating_mul(2)
    }

    /// Brings exactly this object, from the first clone URL that has it; gives the commit it stands for.
    pub(super) async fn fetch_commit(
        &self,
        facts: &RepositoryMetadata,
        mirror: &Mirror,
        object: &str,
        reference: &str,
    ) -> Result<CommitId, SourceError> {
        let urls: Vec<(String, Reach)> = facts.clone_urls().into_iter().map(|url| (url, self.reach())).collect();
        let references = [reference.to_owned()];
        let wanted = WantedObject { object, references: &references, into: None, until: self.deadline() };
        self.fetch_object(&urls, mirror, &wanted).await
    }

    /// The same from these URLs.
    pub(super) async fn fetch_object(
        &self,
        urls: &[(String, Reach)],
        mirror: &Mirror,
        wanted: &WantedObject<'_>,
    ) -> Result<CommitId, SourceError> {
        let WantedObject { object, references, into, until } = *wanted;
        if let Some(commit) = mirror.peel(object).await {
            return Ok(commit);
        }
        let mut complaints = Vec::new();
        for (url, reach) in urls {
            if Instant::now() >= until {
                complaints.push("the others were not tried: these took too long".into());
                break;
            }
            let checked = match network::check_clone(url, *reach).await {
                Ok(checked) => checked,
                Err(error) => {
                    complaints.push(error.to_string());
                    continue;
                }
            };
            let fetched = async {
                let mut outcome = match into {
                    Some(into) => mirror.fetch_ref(&checked, object, into).await,
                    None => mirror.fetch_commits(&checked, &[object.to_owned()]).await,
                };
                for reference in references {
                    if outcome.is_ok() && mirror.peel(object).await.is_some() {
                        break;
                    }
                    let into = into.map_or_else(|| fetched(reference), str::to_owned);
                    outcome = mirror.fetch_ref(&checked, reference, &into).await;
                }
                outcome
            };
            let Ok(outcome) = tokio::time::timeout_at(until, fetched).await else {
                complaints.push(format!("{url}: it took too long"));
                break;
            };
            // Whatever else the server has: only the wanted object counts.
            match (mirror.peel(object).await, outcome) {
                (Some(commit), _) => return Ok(commit),
                (None, Ok(())) => complaints.push(format!("{url} has {} at another commit", references.join(" and "))),
                (None, Err(error)) => complaints.push(format!("{url}: {error}")),
            }
        }
        if complaints.is_empty() {
            complaints.push("the announcement (30617) names no clone URL".into());
        }
        Err(SourceError::NotYet(format!("commit {object} is at none of the clone URLs: {}", complaints.join("; "))))
    }

    /// Brings the tips of the state for the proof of ancestry; true where something new may have come.
    pub(super) async fn fetch_tips(&self, facts: &RepositoryMetadata, mirror: &Mirror, tips: &[String]) -> bool {
        let present = mirror.present(tips.to_vec()).await;
        let missing: Vec<String> = tips.iter().filter(|tip| !present.contains(*tip)).cloned().collect();
        if missing.is_empty() {
            return false;
        }
        let fetched = async {
            for url in facts.clone_urls() {
                let Ok(checked) = network::check_clone(&url, self.reach()).await else { continue };
                if mirror.fetch_commits(&checked, &missing).await.is_ok() {
                    break;
                }
            }
        };
        // What came before the time was over counts.
        let _ = tokio::time::timeout_at(self.deadline(), fetched).await;
        true
    }
}

/// Where a ref of another server is kept.
fn fetched(reference: &str) -> String {
    format!("refs/fetched/{}", reference.trim_start_matches("refs/"))
}
