//! The coordinator's bulk service, as the parts of a worker share its client: logs, sources and connections of actions.

use proto::worker::bulk_client::BulkClient;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Client of the bulk service.
pub(crate) type BulkServiceClient = BulkClient<Channel>;
/// The client while there is a session with a coordinator; `None` between sessions.
pub(crate) type BulkClientWatch = watch::Receiver<Option<BulkServiceClient>>;
/// The service's address, for connections of their own.
pub(super) type BulkEndpointWatch = watch::Receiver<Option<Endpoint>>;

/// The reason that a coordinator gives for a call that it refuses.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(crate) fn refusal(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
