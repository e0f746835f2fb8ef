//! Wishes that a repository be served from now on, or no more.

use nostr::Event;

use super::{Inner, RequestHandler, settled};
use crate::protocol::Ignored;

impl<D: RequestHandler> Inner<D> {
    /// A wish to have a repository served. Nobody is answered: what is served is published.
    pub(super) async fn service(&self, relay: &str, event: &Event) -> anyhow::Result<()> {
        if self.store.seen(&event.id.to_hex()).await? {
            return Ok(());
        }
        if self.cancels_rate.check_key(&event.pubkey).is_err() {
            self.count(event, Ignored::OverRate);
            return Ok(());
        }
        let settle = self.settle(event.id);
        settled(self.handler.service(event.clone(), relay.to_owned(), settle).await)
    }
}
