//! What starts workflows without anybody asking, as it is written.

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use workflow::dialect::workflow_folders;

use super::repository_address;

/// What starts workflows without anybody asking.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Triggers {
    /// Repositories whose pushes start workflows: `30617:<owner>:<id>`, `<npub>/<id>`, or naddr. Those that
    /// `longshore repository add` named are followed besides. None: nothing starts by itself.
    pub repositories: Vec<String>,
    /// Folders of a repository that may have the workflows which start so, the first before the others: of a repository
    /// that has workflows in several of them, those of the first count. A repository may say it otherwise, under
    /// `workflows` in its `.github/longshore.yml`.
    pub folders: Vec<String>,
}

impl Default for Triggers {
    fn default() -> Self {
        let folders = [".ngit/act/workflows", ".github/workflows", ".ngit/workflows"];
        Self { repositories: Vec::new(), folders: folders.map(str::to_owned).into() }
    }
}

impl Triggers {
    /// Addresses of `repositories`.
    ///
    /// # Errors
    /// One is no address.
    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let read = |text: &String| {
            repository_address(text).with_context(|| {
                format!(
                    "triggers.repositories: `{text}` is no repository: write 30617:<owner>:<id>, <npub>/<id> or naddr1…"
                )
            })
        };
        self.repositories.iter().map(read).collect()
    }

    /// # Errors
    /// Something in it can't be meant.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.addresses()?;
        let known = workflow_folders();
        for folder in &self.folders {
            let known_folders = known.join(", ");
            ensure!(
                known.contains(&folder.as_str()),
                "triggers.folders: `{folder}` holds no workflows here: name some of {known_folders}"
            );
        }
        Ok(())
    }
}
