//! Ends runs of a pull request that wait for an approval which nobody should give any more.

use triggers::pull_request::Activity;

use super::{TriggerWork, pull_request::PullRequestStart};
use domain::run::RunEvent;
use store::{Filter, Page, Reader, Status};

/// Runs of one pull request that are looked at: it may not have more that wait.
const LOOKED_AT: u32 = 500;

impl TriggerWork {
    /// Ends those of an older head, where the head moved, and all where the pull request was closed. What was approved goes
    /// on.
    pub(super) async fn end_held(&self, start: &PullRequestStart, number: u64) -> anyhow::Result<()> {
        let by = match start.activity {
            Activity::Synchronize => "a newer head of its pull request",
            Activity::Closed => "the end of its pull request",
            _ => return Ok(()),
        };
        let store = self.run_service.store();
        let filter = Filter {
            repository: Some(start.repository.address.clone()),
            branch: Some(format!("pull/{number}/merge")),
            status: vec![Status::Waiting],
            reader: Reader::Operator,
            ..Filter::default()
        };
        for found in store.list(&filter, Page { before: None, limit: LOOKED_AT }).await? {
            let Some(state) = store.run(&found.id).await?.filter(|state| state.is_held()) else { continue };
            let head = state.request.pull_request.as_ref().map(|of| of.head.as_str());
            let is_stale = start.activity == Activity::Closed || head != Some(start.request.head.commit.as_str());
            if is_stale {
                self.run_service.apply(&state.id, RunEvent::Cancel { by: by.into() }, Vec::new()).await?;
            }
        }
        Ok(())
    }
}
