//! The coordinator's bulk service, as the parts of a worker share its client: logs, sources and connections of actions.

use std::path::PathBuf;

use proto::worker::bulk_client::BulkClient;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tracing::warn;

use super::connect;

/// Client of the bulk service.
pub(crate) type BulkServiceClient = BulkClient<Channel>;
/// The client while there is a session with a coordinator; `None` between sessions.
pub(crate) type BulkClientWatch = watch::Receiver<Option<BulkServiceClient>>;
/// The service's address, for connections of their own.
pub(super) type BulkEndpointWatch = watch::Receiver<Option<Endpoint>>;
/// Its URL while there is a session with a coordinator.
pub(crate) type BulkUrlWatch = watch::Receiver<Option<String>>;

/// A connection to the service that follows its URL.
pub(crate) struct BulkConnection {
    pub(crate) client: BulkClientWatch,
    pub(super) endpoint: BulkEndpointWatch,
    _following: AbortOnDropHandle<()>,
}

impl BulkConnection {
    /// `ca_file` as in the configuration. Connects when it is used first.
    pub(crate) fn new(mut url: BulkUrlWatch, ca_file: Option<PathBuf>) -> Self {
        let (clients, client) = watch::channel(None);
        let (endpoints, endpoint) = watch::channel(None);
        let following = tokio::spawn(async move {
            loop {
                let known = url.borrow_and_update().clone();
                let found = match known.map(|url| connect::endpoint(&url, ca_file.as_deref())).transpose() {
                    Ok(found) => found,
                    Err(error) => {
                        warn!(error = format!("{error:#}"), "no connection to the bulk service");
                        None
                    }
                };
                clients.send_replace(found.as_ref().map(client_of));
                endpoints.send_replace(found);
                if url.changed().await.is_err() {
                    // The last URL stays good for whoever still uses it.
                    return std::future::pending().await;
                }
            }
        });
        Self { client, endpoint, _following: AbortOnDropHandle::new(following) }
    }
}

/// A client that connects when it is used first.
pub(super) fn client_of(endpoint: &Endpoint) -> BulkServiceClient {
    BulkClient::new(endpoint.connect_lazy()).max_decoding_message_size(proto::MESSAGE_LIMIT)
}

/// The reason that a coordinator gives for a call that it refuses.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(crate) fn refusal(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

#[cfg(test)]
mod tests;
