//! Wishes that a repository be served from now on, or no more, and secrets that are given for it.

use nostr::Event;

use super::{Inner, RequestHandler, settled};
use crate::protocol::Ignored;

impl<D: RequestHandler> Inner<D> {
    /// A wish to have a repository served. Nobody is answered: what is served is published.
    pub(super) async fn service(&self, relay: &str, event: &Event) -> anyhow::Result<()> {
        if self.is_settled(event).await? {
            return Ok(());
        }
        let settle = self.settle(event.id);
        settled(self.handler.service(event.clone(), relay.to_owned(), settle).await)
    }

    /// Secrets for a repository. Nobody is answered: what jobs find says what was taken.
    pub(super) async fn secrets(&self, event: &Event) -> anyhow::Result<()> {
        if self.is_settled(event).await? {
            return Ok(());
        }
        settled(self.handler.secrets(event.clone(), self.settle(event.id)).await)
    }

    /// Whether it was taken before, or is more than its author may send.
    async fn is_settled(&self, event: &Event) -> anyhow::Result<bool> {
        if self.store.seen(&event.id.to_hex()).await? {
            return Ok(true);
        }
        let is_over = self.cancels_rate.check_key(&event.pubkey).is_err();
        if is_over {
            self.count(event, Ignored::OverRate);
        }
        Ok(is_over)
    }
}
