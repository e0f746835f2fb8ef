//! Requests that wait for their partner, bounded for each author and for each share, in number and bytes.

use std::collections::{BTreeSet, HashMap};

use domain::run::{Millis, NostrOrigin};
use nostr::{EventId, PublicKey};

use super::shares::{Share, ShareLimits};

/// A request that waits for its partner.
#[derive(Debug, Clone)]
pub(super) struct PendingRequest {
    pub(super) author: PublicKey,
    /// Whose share it takes.
    pub(super) share: Share,
    /// Bytes of its event.
    pub(super) bytes: usize,
    /// What refusing it needs.
    pub(super) origin: NostrOrigin,
    /// Why it is refused if its partner does not come.
    pub(super) missing: String,
    /// When it is given up.
    pub(super) until: Millis,
}

#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    requests: HashMap<EventId, PendingRequest>,
    deadlines: BTreeSet<(Millis, EventId)>,
    of_author: HashMap<PublicKey, usize>,
    known: Taken,
    others: Taken,
}

/// What is taken of a share.
#[derive(Debug, Default)]
struct Taken {
    requests: usize,
    bytes: usize,
}

impl PendingRequests {
    /// Whether another request of this author, of so many bytes, may wait.
    pub(super) fn has_room(&self, author: &PublicKey, share: Share, limits: &ShareLimits, bytes: usize) -> bool {
        let taken = match share {
            Share::Known => &self.known,
            Share::Others => &self.others,
        };
        taken.requests < limits.waiting
            && taken.bytes.saturating_add(bytes) <= limits.waiting_bytes
            && self.of_author.get(author).is_none_or(|count| *count < limits.waiting_of_author)
    }

    fn taken(&mut self, share: Share) -> &mut Taken {
        match share {
            Share::Known => &mut self.known,
            Share::Others => &mut self.others,
        }
    }

    pub(super) fn insert(&mut self, id: EventId, request: PendingRequest) {
        self.remove(&id);
        self.deadlines.insert((request.until, id));
        *self.of_author.entry(request.author).or_default() += 1;
        let taken = self.taken(request.share);
        taken.requests += 1;
        taken.bytes += request.bytes;
        self.requests.insert(id, request);
    }

    pub(super) fn remove(&mut self, id: &EventId) {
        let Some(request) = self.requests.remove(id) else { return };
        self.deadlines.remove(&(request.until, *id));
        let taken = self.taken(request.share);
        taken.requests = taken.requests.saturating_sub(1);
        taken.bytes = taken.bytes.saturating_sub(request.bytes);
        if let Some(count) = self.of_author.get_mut(&request.author) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_author.remove(&request.author);
            }
        }
    }

    pub(super) fn get(&self, id: &EventId) -> Option<&PendingRequest> {
        self.requests.get(id)
    }

    pub(super) fn contains(&self, id: &EventId) -> bool {
        self.requests.contains_key(id)
    }

    /// When the first of them is given up.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Requests whose time is over, the oldest first.
    pub(super) fn expired(&self, now: Millis, most: usize) -> Vec<(EventId, PendingRequest)> {
        let over = self.deadlines.iter().take_while(|(until, _)| *until <= now).take(most);
        over.filter_map(|(_, id)| Some((*id, self.requests.get(id)?.clone()))).collect()
    }

    /// Gives a request up later.
    pub(super) fn postpone(&mut self, id: &EventId, until: Millis) {
        if let Some(request) = self.requests.get(id).cloned() {
            self.insert(*id, PendingRequest { until, ..request });
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::run::OriginEvent;
    use nostr::Keys;

    use super::*;

    fn id(number: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EventId::from_byte_array(bytes)
    }

    fn request(author: PublicKey, share: Share, until: Millis) -> PendingRequest {
        let origin = NostrOrigin {
            protocol: "any".into(),
            request: OriginEvent { kind: 1, id: String::new() },
            run: None,
            author: author.to_hex(),
            publisher: None,
            relays: Vec::new(),
            details: serde_json::Value::Null,
        };
        PendingRequest { author, share, bytes: 100, origin, missing: String::new(), until }
    }

    #[test]
    fn attack_59_authors_that_nobody_knows_leave_room_for_those_that_are_known() {
        let mut pending = PendingRequests::default();
        let (known, others) = (Share::Known.limits(false), Share::Others.limits(false));
        let mut number = 0;
        let author = |_| Keys::generate().public_key();
        loop {
            let stranger = author(());
            if !pending.has_room(&stranger, Share::Others, &others, 100) {
                break;
            }
            pending.insert(id(number), request(stranger, Share::Others, 5));
            number += 1;
        }
        assert_eq!(number, others.waiting);
        let greedy = author(());
        while pending.has_room(&greedy, Share::Known, &known, 100) {
            pending.insert(id(number), request(greedy, Share::Known, 5));
            number += 1;
        }
        assert_eq!(number, others.waiting + known.waiting_of_author);
        assert!(pending.has_room(&author(()), Share::Known, &known, 100), "one author leaves room for others");
        assert!(!pending.has_room(&author(()), Share::Known, &known, known.waiting_bytes), "bytes count too");
        pending.remove(&id(0));
        assert!(pending.has_room(&author(()), Share::Others, &others, 100));
    }

    #[test]
    fn requests_are_given_up_in_the_order_of_their_deadlines() {
        let mut pending = PendingRequests::default();
        let author = Keys::generate().public_key();
        for (number, until) in [(1, 30), (2, 10), (3, 20)] {
            pending.insert(id(number), request(author, Share::Known, until));
        }
        let expired = |pending: &PendingRequests, now| -> Vec<EventId> {
            pending.expired(now, 9).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(pending.next_deadline(), Some(10));
        assert_eq!(expired(&pending, 20), [id(2), id(3)]);
        pending.postpone(&id(2), 40);
        pending.remove(&id(3));
        assert_eq!(expired(&pending, 40), [id(1), id(2)]);
        assert_eq!(pending.expired(40, 1).len(), 1);
    }
}
