//! What intake hands on: requests that were read well, refusals, and what is asked of runs and repositories.

use futures::future::BoxFuture;
use nostr::{Event, EventId, PublicKey};

use crate::{
    delivery::Audience,
    protocol::{Refusal, Secrets},
};
use domain::run::RunRequest;
use store::Batch;

/// What intake hands requests to. Every call may be repeated.
pub trait RequestHandler: Send + Sync + 'static {
    /// A request that was read well. `settle` belongs into the transaction that stores the run: it fails with
    /// [`store::StoreError::Seen`] where the request was taken in before, which is success. A refusal: nothing was stored.
    fn accept(
        &self,
        request: RunRequest,
        secrets: Secrets,
        settle: Batch,
    ) -> BoxFuture<'_, anyhow::Result<Option<Refusal>>>;
    /// A request that gets a reason instead of a run. `settle` as above, with the events of the answer.
    fn refuse(&self, refusal: Refusal, audience: Audience, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Somebody asks to end the run of this request. Returns whether there is such a run, theirs to end or not.
    fn cancel(&self, request: EventId, cancel: CancelRequest) -> BoxFuture<'_, anyhow::Result<bool>>;
    /// Somebody asks that a repository be served from now on, or no more. `relay` had the event. `settle` as above.
    fn service(&self, event: Event, relay: String, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Somebody gives or removes secrets of a repository. `settle` as above, once that is done.
    fn secrets(&self, event: Event, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Requests whose runs have not ended: the newest of each author first, then the second of each, and so on.
    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<EventId>>>;
}

/// Who asks to end a run, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelRequest {
    /// By an event of its protocol, which maintainers of the repository may send too.
    Cancel(PublicKey),
    /// By a deletion of the request (NIP-09), which is its author's alone.
    Deletion(PublicKey),
}
