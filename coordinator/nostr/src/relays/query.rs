//! Gathers questions to one relay into few subscriptions. Pure: it neither sends nor waits.
//!
//! Questions with the same filter share one answer, as long as it was not asked for yet: an answer that is on its way may
//! be older than the question. Filters that differ in one set of values become one filter, several filters one
//! subscription, within the relay's limits.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use indexmap::IndexMap;
use nostr::{
    Alphabet, Event, EventId, Filter, Kind, SingleLetterTag, SubscriptionId, filter::MatchEventOptions,
    secp256k1::schnorr::Signature,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{RelayError, limits::ConnectionLimits};

/// Values of one set in a filter; relays refuse very long ones.
const VALUES: usize = 100;
/// Events that one subscription may answer with.
const EVENTS: usize = 10_000;
/// Memory of events that one question is answered with, in bytes; what is more is left out.
const BYTES: usize = 8 << 20;
/// Events with a false signature after which a subscription is not listened to any more.
const FORGED: usize = 20;
/// Signatures that are remembered as true.
const VERIFIED: usize = 1024;
/// How often a relay may refuse a filter that stands alone.
const REFUSALS: u8 = 3;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Vec<Event>, RelayError>>;

/// A filter and who waits for its events.
#[derive(Debug)]
struct Question {
    filter: Filter,
    replies: Vec<Reply>,
    events: Vec<Event>,
    bytes: usize,
    /// What it takes of the room of all.
    room: Vec<OwnedSemaphorePermit>,
    refusals: u8,
}

impl Question {
    fn is_awaited(&self) -> bool {
        self.replies.iter().any(|reply| !reply.is_closed())
    }

    fn answer(mut self, last: Result<(), RelayError>) {
        let answer = last.map(|()| self.events);
        let Some(final_reply) = self.replies.pop() else { return };
        // A receiver that is gone has given up waiting.
        for reply in self.replies {
            let _ = reply.send(answer.clone());
        }
        let _ = final_reply.send(answer);
    }
}

#[derive(Debug)]
struct OpenQuery {
    questions: Vec<Question>,
    seen: HashSet<EventId>,
    forged: usize,
}

/// What to do with a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The relay holds it open still: send CLOSE.
    Close,
    /// The relay has ended it.
    Gone,
    /// The relay has no room for it: its questions are asked again when another subscription has ended.
    NoRoom,
    /// None of ours.
    Unknown,
}

/// Questions to one relay that have no answer yet.
#[derive(Debug)]
pub(super) struct Queries {
    limits: ConnectionLimits,
    waiting: IndexMap<Filter, Question>,
    asked: HashMap<SubscriptionId, OpenQuery>,
    /// Signatures that were found true: each plan asks for the same announcement and the same state again.
    verified: HashSet<(EventId, Signature)>,
    number: u64,
    /// Bytes of answers that may wait, here and at other relays.
    room: Arc<Semaphore>,
}

impl Queries {
    pub(super) fn new(limits: ConnectionLimits, room: Arc<Semaphore>) -> Self {
        Self { limits, waiting: IndexMap::new(), asked: HashMap::new(), verified: HashSet::new(), number: 0, room }
    }

    pub(super) fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    pub(super) fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Subscriptions that are open.
    pub(super) fn open(&self) -> usize {
        self.asked.len()
    }

    /// Whether none is open.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Notes a question for the next subscription.
    pub(super) fn add(&mut self, filter: Filter, reply: Reply) {
        let (replies, events, room) = (vec![reply], Vec::new(), Vec::new());
        self.queue(Question { filter, replies, events, bytes: 0, room, refusals: 0 });
    }

    fn queue(&mut self, mut question: Question) {
        question.events.clear();
        question.bytes = 0;
        question.room.clear();
        match self.waiting.get_mut(&question.filter) {
            Some(known) => {
                known.replies.append(&mut question.replies);
                known.refusals = known.refusals.max(question.refusals);
            }
            None => {
                self.waiting.insert(question.filter.clone(), question);
            }
        }
    }

    /// The next subscription to open, beside `standing` ones; `None`: nothing waits, or there is no room.
    pub(super) fn next_subscription(&mut self, standing: usize) -> Option<(SubscriptionId, Vec<Filter>)> {
        let room = self.limits.subscriptions.saturating_sub(standing).max(1);
        if self.asked.len() >= room {
            return None;
        }
        let mut filters: Vec<Filter> = Vec::new();
        let mut questions = Vec::new();
        for (filter, question) in std::mem::take(&mut self.waiting) {
            if !question.is_awaited() {
                continue;
            }
            let alone = question.refusals > 0;
            let joined = if alone || questions.iter().any(|known: &Question| known.refusals > 0) {
                filters.is_empty() && push(&mut filters, &filter)
            } else {
                filters.iter_mut().any(|known| widen(known, &filter))
                    || filters.len() < self.limits.filters && push(&mut filters, &filter)
            };
            if joined {
                questions.push(question);
            } else {
                self.waiting.insert(filter, question);
            }
        }
        if filters.is_empty() {
            return None;
        }
        self.number += 1;
        let id = SubscriptionId::new(format!("q{}", self.number));
        self.asked.insert(id.clone(), OpenQuery { questions, seen: HashSet::new(), forged: 0 });
        Some((id, filters))
    }

    /// Takes an event that takes so many bytes. Returns whether the subscription is one of these; `false` for those of others.
    pub(super) fn event(&mut self, id: &SubscriptionId, event: &Event, bytes: usize) -> bool {
        let Some(asked) = self.asked.get_mut(id) else { return false };
        let full = asked.seen.len() >= EVENTS || asked.forged >= FORGED;
        if full || asked.seen.contains(&event.id) {
            return true;
        }
        let matches = |question: &&mut Question| {
            let room = question.bytes.saturating_add(bytes) <= BYTES;
            room && question.filter.match_event(event, MatchEventOptions::new())
        };
        let mut wanted: Vec<&mut Question> = asked.questions.iter_mut().filter(matches).collect();
        if wanted.is_empty() {
            return true;
        }
        let signed = (event.id, event.sig);
        let known = self.verified.contains(&signed) && event.verify_id();
        if !known {
            if event.verify().is_err() {
                asked.forged += 1;
                return true;
            }
            if self.verified.len() >= VERIFIED {
                self.verified.clear();
            }
            self.verified.insert(signed);
        }
        asked.seen.insert(event.id);
        for question in &mut wanted {
            let size = u32::try_from(bytes).unwrap_or(u32::MAX);
            let Ok(room) = self.room.clone().try_acquire_many_owned(size) else { continue };
            question.room.push(room);
            question.events.push(event.clone());
            question.bytes += bytes;
        }
        true
    }

    /// The relay has given all it has.
    pub(super) fn end_of_stored(&mut self, id: &SubscriptionId) -> Ended {
        let Some(asked) = self.asked.remove(id) else { return Ended::Unknown };
        for question in asked.questions {
            question.answer(Ok(()));
        }
        Ended::Close
    }

    /// The relay has ended a subscription before it gave all.
    pub(super) fn closed(&mut self, id: &SubscriptionId, reason: &str) -> Ended {
        let Some(asked) = self.asked.remove(id) else { return Ended::Unknown };
        if reason.is_empty() {
            // Some relays end a subscription of ids that way once they gave them all.
            for question in asked.questions {
                question.answer(Ok(()));
            }
            return Ended::Gone;
        }
        let no_room = is_about_number(reason);
        let alone = asked.questions.len() == 1;
        for mut question in asked.questions {
            // It may be one filter of several that the relay does not like.
            question.refusals = question.refusals.saturating_add(u8::from(!no_room && !is_about_identity(reason)));
            if question.refusals > REFUSALS || alone && question.refusals > 1 {
                question.answer(Err(RelayError::Refused(reason.to_owned())));
            } else {
                self.queue(question);
            }
        }
        if no_room { Ended::NoRoom } else { Ended::Gone }
    }

    /// The connection is lost: all is asked again on the next one.
    pub(super) fn disconnected(&mut self) {
        let asked: Vec<OpenQuery> = self.asked.drain().map(|(_, asked)| asked).collect();
        for question in asked.into_iter().flat_map(|asked| asked.questions) {
            self.queue(question);
        }
    }

    /// Answers all that waits with an error.
    pub(super) fn fail(&mut self, error: &RelayError) {
        self.disconnected();
        for (_, question) in std::mem::take(&mut self.waiting) {
            question.answer(Err(error.clone()));
        }
    }

    /// Forgets what nobody waits for any more. Returns the subscriptions to close.
    pub(super) fn forget_unawaited(&mut self) -> Vec<SubscriptionId> {
        self.waiting.retain(|_, question| question.is_awaited());
        let over: Vec<SubscriptionId> = self
            .asked
            .iter()
            .filter(|(_, asked)| !asked.questions.iter().any(Question::is_awaited))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &over {
            self.asked.remove(id);
        }
        over
    }
}

/// Whether a relay ended a subscription because there are too many.
pub(super) fn is_about_number(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    reason.starts_with("rate-limited") || reason.contains("too many") && !reason.contains("filter")
}

/// Whether a relay wants to know who asks (NIP-42).
pub(super) fn is_about_identity(reason: &str) -> bool {
    reason.starts_with("auth-required")
}

fn push(filters: &mut Vec<Filter>, filter: &Filter) -> bool {
    filters.push(filter.clone());
    true
}

/// Makes `known` select what `other` selects besides, if the union of one set of values does exactly that and can't make
/// a relay's limit of events cut an answer short: ids, or events of which each author has one.
fn widen(known: &mut Filter, other: &Filter) -> bool {
    if known.limit.is_some() || other.limit.is_some() || known.search.is_some() || other.search.is_some() {
        return false;
    }
    if let (Some(ids), Some(more)) = (&known.ids, &other.ids) {
        let rest = |filter: &Filter| Filter { ids: None, ..filter.clone() };
        return rest(known) == rest(other) && unite(&ids.clone(), more, |ids| known.ids = Some(ids));
    }
    let one_for_each = |kind: &Kind| kind.is_replaceable() || kind.is_addressable();
    if known.kinds != other.kinds || !known.kinds.as_ref().is_some_and(|kinds| kinds.iter().all(one_for_each)) {
        return false;
    }
    if let (Some(authors), Some(more)) = (&known.authors, &other.authors)
        && authors != more
    {
        let rest = |filter: &Filter| Filter { authors: None, ..filter.clone() };
        return rest(known) == rest(other) && unite(&authors.clone(), more, |authors| known.authors = Some(authors));
    }
    let mut tags = known.generic_tags.iter().zip(&other.generic_tags).filter(|(one, two)| one != two);
    let (Some(((name, values), (other_name, more))), None) = (tags.next(), tags.next()) else { return false };
    if name != other_name || known.generic_tags.len() != other.generic_tags.len() {
        return false;
    }
    // Some relays take a filter for addressable events as one address, and look at its first `d` alone.
    if *name == SingleLetterTag::lowercase(Alphabet::D) {
        return false;
    }
    let (name, values) = (*name, values.clone());
    let rest = |filter: &Filter| {
        let mut filter = filter.clone();
        filter.generic_tags.remove(&name);
        filter
    };
    rest(known) == rest(other)
        && unite(&values, more, |values| {
            known.generic_tags.insert(name, values);
        })
}

fn unite<T: Ord + Clone>(values: &BTreeSet<T>, more: &BTreeSet<T>, set: impl FnOnce(BTreeSet<T>)) -> bool {
    let all: BTreeSet<T> = values.union(more).cloned().collect();
    if all.len() > VALUES {
        return false;
    }
    set(all);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Keys, PublicKey};

    use super::*;

    fn queries(subscriptions: usize, filters: usize) -> Queries {
        Queries::new(ConnectionLimits { subscriptions, filters }, Arc::new(Semaphore::new(2 * BYTES)))
    }

    fn list(author: &PublicKey) -> Filter {
        Filter::new().kind(Kind::RelayList).author(*author)
    }

    fn query(queries: &mut Queries, filter: Filter) -> oneshot::Receiver<Result<Vec<Event>, RelayError>> {
        let (reply, answer) = oneshot::channel();
        queries.add(filter, reply);
        answer
    }

    fn event(keys: &Keys, kind: Kind) -> Event {
        EventBuilder::new(kind, "").sign_with_keys(keys).unwrap()
    }

    #[test]
    fn a_thousand_questions_become_one_subscription_and_each_gets_its_own_events() {
        let mut queries = queries(20, 10);
        let keys: Vec<Keys> = (0..1000).map(|_| Keys::generate()).collect();
        let mut answers: Vec<_> = keys.iter().map(|key| query(&mut queries, list(&key.public_key()))).collect();
        let (id, filters) = queries.next_subscription(3).unwrap();
        assert_eq!(filters.len(), 10);
        assert!(filters.iter().all(|filter| filter.authors.as_ref().unwrap().len() == 100));
        assert_eq!(queries.next_subscription(3), None, "nothing is left");
        let (first, second) = (event(&keys[0], Kind::RelayList), event(&keys[1], Kind::RelayList));
        for event in [&first, &first, &second] {
            assert!(queries.event(&id, event, 500));
        }
        assert_eq!(queries.end_of_stored(&id), Ended::Close);
        assert_eq!(answers.remove(0).try_recv().unwrap(), Ok(vec![first]));
        assert_eq!(answers.remove(0).try_recv().unwrap(), Ok(vec![second]));
        assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap() == Ok(Vec::new())));
    }

    #[test]
    fn attack_59_what_one_question_is_answered_with_is_bounded_and_leaves_room_for_the_others() {
        let mut queries = queries(20, 10);
        let (greedy, other) = (Keys::generate(), Keys::generate());
        let mut answers = [&greedy, &other].map(|key| query(&mut queries, list(&key.public_key())));
        let (id, _) = queries.next_subscription(0).unwrap();
        for _ in 0..20 {
            queries.event(&id, &event(&greedy, Kind::RelayList), BYTES / 4);
        }
        queries.event(&id, &event(&other, Kind::RelayList), BYTES / 4);
        queries.end_of_stored(&id);
        let found = answers.each_mut().map(|answer| answer.try_recv().unwrap().unwrap().len());
        assert!(found[0] <= 4 && found[1] == 1, "{found:?}");
    }

    #[test]
    fn attack_59_what_waits_at_all_relays_together_is_bounded() {
        let room = Arc::new(Semaphore::new(BYTES));
        let key = Keys::generate();
        let mut asked: Vec<_> = (0..3)
            .map(|_| {
                let limits = ConnectionLimits { subscriptions: 20, filters: 10 };
                let mut queries = Queries::new(limits, room.clone());
                let answer = query(&mut queries, list(&key.public_key()));
                let (id, _) = queries.next_subscription(0).unwrap();
                queries.event(&id, &event(&key, Kind::RelayList), BYTES / 5 * 2);
                (queries, id, answer)
            })
            .collect();
        let mut found = |index: usize| {
            let (queries, id, answer) = &mut asked[index];
            queries.end_of_stored(id);
            answer.try_recv().unwrap().unwrap().len()
        };
        assert_eq!([found(0), found(1), found(2)], [1, 1, 0]);
        assert_eq!(room.available_permits(), BYTES, "an answer that was given takes no room");
    }

    #[test]
    fn an_answer_on_its_way_serves_nobody_who_asks_later() {
        let mut queries = queries(20, 10);
        let key = Keys::generate();
        let filter = list(&key.public_key());
        let (mut one, mut two) = (query(&mut queries, filter.clone()), query(&mut queries, filter.clone()));
        let (first, _) = queries.next_subscription(0).unwrap();
        let mut late = query(&mut queries, filter);
        let (second, filters) = queries.next_subscription(0).unwrap();
        assert_eq!(filters.len(), 1);
        queries.end_of_stored(&first);
        assert!(one.try_recv().is_ok() && two.try_recv().is_ok() && late.try_recv().is_err());
        queries.event(&second, &event(&key, Kind::RelayList), 500);
        queries.end_of_stored(&second);
        assert_eq!(late.try_recv().unwrap().unwrap().len(), 1);
    }

    #[test]
    fn never_more_subscriptions_are_open_than_the_relay_allows_with_the_standing_ones() {
        let mut queries = queries(5, 1);
        let filter = |number: usize| Filter::new().kind(Kind::TextNote).limit(number + 1);
        let _answers: Vec<_> = (0..10).map(|number| query(&mut queries, filter(number))).collect();
        let open: Vec<_> = std::iter::from_fn(|| queries.next_subscription(3)).collect();
        assert_eq!(open.len(), 2);
        queries.end_of_stored(&open[0].0);
        assert!(queries.next_subscription(3).is_some() && queries.next_subscription(3).is_none());
        assert!(self::queries(2, 1).next_subscription(9).is_none());
    }

    #[test]
    fn what_a_relay_had_no_room_for_is_asked_again_once_another_subscription_has_ended() {
        let mut queries = queries(20, 1);
        let filter = |number: usize| Filter::new().kind(Kind::TextNote).limit(number + 1);
        let mut answers: Vec<_> = (0..3).map(|number| query(&mut queries, filter(number))).collect();
        let open: Vec<_> = std::iter::from_fn(|| queries.next_subscription(1)).map(|(id, _)| id).collect();
        assert_eq!(open.len(), 3);
        assert_eq!(queries.closed(&open[2], "rate-limited: too many REQs"), Ended::NoRoom);
        queries.set_limits(ConnectionLimits { subscriptions: 3, filters: 1 });
        assert_eq!(queries.next_subscription(1), None, "two and the standing one are what it allows");
        assert!(answers[2].try_recv().is_err());
        queries.end_of_stored(&open[0]);
        let (again, _) = queries.next_subscription(1).unwrap();
        queries.end_of_stored(&again);
        assert_eq!(answers[2].try_recv().unwrap(), Ok(Vec::new()));
    }

    #[test]
    fn a_filter_that_a_relay_refuses_fails_alone() {
        let mut queries = queries(20, 10);
        let filter = |number: usize| Filter::new().kind(Kind::TextNote).limit(number + 1);
        let mut answers: Vec<_> = (0..2).map(|number| query(&mut queries, filter(number))).collect();
        let (id, filters) = queries.next_subscription(0).unwrap();
        assert_eq!(filters.len(), 2);
        queries.closed(&id, "error: filter too broad");
        let (one, filters) = queries.next_subscription(0).unwrap();
        let (two, _) = queries.next_subscription(0).unwrap();
        assert_eq!(filters.len(), 1);
        queries.closed(&one, "error: filter too broad");
        queries.end_of_stored(&two);
        let ended: Vec<bool> = answers.iter_mut().map(|answer| answer.try_recv().unwrap().is_ok()).collect();
        assert_eq!(ended, [false, true]);
    }

    #[test]
    fn events_that_were_not_asked_for_or_are_forged_are_left_out() {
        let mut queries = queries(20, 10);
        let key = Keys::generate();
        let mut answer = query(&mut queries, list(&key.public_key()));
        let (id, _) = queries.next_subscription(0).unwrap();
        let mut forged = event(&key, Kind::RelayList);
        forged.content = "other".into();
        for event in [event(&Keys::generate(), Kind::RelayList), event(&key, Kind::TextNote), forged] {
            queries.event(&id, &event, 500);
        }
        queries.end_of_stored(&id);
        assert_eq!(answer.try_recv().unwrap(), Ok(Vec::new()));
    }

    #[test]
    fn an_event_that_was_verified_is_forged_all_the_same_with_another_content_or_signature() {
        let mut queries = queries(20, 10);
        let key = Keys::generate();
        let genuine = event(&key, Kind::RelayList);
        let (mut changed, mut signed_by_another) = (genuine.clone(), genuine.clone());
        changed.content = "other".into();
        signed_by_another.sig = event(&Keys::generate(), Kind::RelayList).sig;
        for (sent, expected) in [(&genuine, 1), (&changed, 0), (&signed_by_another, 0), (&genuine, 1)] {
            let mut answer = query(&mut queries, list(&key.public_key()));
            let (id, _) = queries.next_subscription(0).unwrap();
            queries.event(&id, sent, 500);
            queries.end_of_stored(&id);
            assert_eq!(answer.try_recv().unwrap().unwrap().len(), expected, "{sent:?}");
        }
    }

    #[test]
    fn filters_are_united_only_where_the_union_selects_nothing_else() {
        let (a, b) = (Keys::generate().public_key(), Keys::generate().public_key());
        let of = |author: PublicKey, name: &str| {
            Filter::new().kind(Kind::GitRepoAnnouncement).author(author).identifier(name)
        };
        for (one, two, united) in [
            (of(a, "x"), of(b, "x"), true),
            (of(a, "x"), of(a, "y"), false),
            (of(a, "x"), of(b, "y"), false),
            (of(a, "x"), Filter::new().kind(Kind::RepoState).author(a).identifier("x"), false),
            (of(a, "x").limit(1), of(b, "x").limit(1), false),
            (Filter::new().kind(Kind::TextNote).author(a), Filter::new().kind(Kind::TextNote).author(b), false),
            (
                Filter::new().id(EventId::all_zeros()),
                Filter::new().id(event(&Keys::generate(), Kind::TextNote).id),
                true,
            ),
        ] {
            assert_eq!(widen(&mut one.clone(), &two), united, "{one:?} {two:?}");
        }
    }
}
