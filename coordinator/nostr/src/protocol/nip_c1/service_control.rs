//! Service requests (9843) and stops (9844): whether a repository is to be served, by all that was said of it.

use std::cmp::Reverse;

use nostr::{Event, EventId, PublicKey};

use super::{
    SERVICE_REQUEST, SERVICE_STOP,
    event_tags::{EventTags, Malformed, key},
    run_subject::RepositoryAddress,
};

/// A request for standing service, or its stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceControl {
    /// The event.
    pub id: EventId,
    /// Who signed it.
    pub author: PublicKey,
    /// Seconds.
    pub created_at: u64,
    /// Whether it asks for service; else it ends it.
    pub starts: bool,
    /// The coordinator that it is for.
    pub coordinator: PublicKey,
    /// The repository, as its announcement's author sees it.
    pub repository: RepositoryAddress,
}

impl ServiceControl {
    /// Reads an event. Its id and signature were checked before. Tags that it does not need change nothing.
    ///
    /// # Errors
    /// It is not shaped as one, or offers a payment.
    pub fn read(event: &Event) -> Result<Self, Malformed> {
        let tags = EventTags::new(event);
        let starts = match event.kind.as_u16() {
            SERVICE_REQUEST => true,
            SERVICE_STOP => false,
            _ => return Err(Malformed::Unsupported("it is no service request or stop (kind 9843 or 9844)")),
        };
        tags.without_content()?;
        tags.without_payment()?;
        tags.without(&["d", "expiration"])?;
        Ok(Self {
            id: event.id,
            author: event.pubkey,
            created_at: event.created_at.as_secs(),
            starts,
            coordinator: key("p", tags.value("p")?)?,
            repository: RepositoryAddress::read(tags.one("a")?)?,
        })
    }

    /// Their total order: the later one is greater. Of two at one second the one with the lower id is the later one.
    pub fn order(&self) -> (u64, Reverse<EventId>) {
        (self.created_at, Reverse(self.id))
    }
}

/// The request by which a repository is served: the newest of a maintainer that nobody has stopped who may. `controls` are
/// those of one repository and coordinator, in any order.
///
/// A maintainer's stop ends all that was asked before it, anybody else's only what they asked themselves.
pub fn standing_request<'a>(
    controls: impl IntoIterator<Item = &'a ServiceControl> + Clone,
    is_maintainer: impl Fn(&PublicKey) -> bool,
) -> Option<&'a ServiceControl> {
    let stops: Vec<&ServiceControl> = controls.clone().into_iter().filter(|control| !control.starts).collect();
    let stopped = |request: &ServiceControl| {
        let ends = |stop: &&&ServiceControl| stop.author == request.author || is_maintainer(&stop.author);
        stops.iter().filter(ends).any(|stop| stop.order() > request.order())
    };
    let requests = controls.into_iter().filter(|control| control.starts && is_maintainer(&control.author));
    requests.filter(|request| !stopped(request)).max_by_key(|request| request.order())
}
