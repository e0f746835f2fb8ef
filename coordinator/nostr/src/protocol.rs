//! What a family of events is to the pool: which events ask for a run or its end, and which events answer. Pure.
//!
//! A protocol is a module of this one with one implementation of [`Protocol`]. Intake brings events to it, the
//! outbox stores what it answers; neither knows its kinds or tags.

use std::fmt;

use nostr::{
    Event, EventId, Filter, Keys, Kind, PublicKey, Tag, Timestamp, UnsignedEvent, secp256k1::schnorr::Signature,
};
use secrecy::SecretString;

use config::Limits;
use domain::id::RunId;
use domain::run::{FinalizedLog, Millis, NostrOrigin, RunRequest, RunUpdate};
use store::Signer;

mod bounds;
pub mod hive_ci;
pub mod nip_c1;

/// A family of events that asks for runs and is answered.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// Its name in stored runs, which stays.
    fn name(&self) -> &'static str;

    /// Kinds of the events it reads: of no other protocol.
    fn kinds(&self) -> &'static [u16];

    /// What asks a relay for requests and cancels from `since` on. Partners of requests are looked for by their ids, and
    /// deletions are heard anyway.
    fn filters(&self, us: &PublicKey, since: Timestamp) -> Vec<Filter>;

    /// What an event of its kinds means, by itself and without effort. Id and signature were checked before.
    fn read(&self, event: &Event, context: &ReadContext<'_>) -> EventMeaning;

    /// Reads a request, with its partner where [`Self::read`] named one. Ids and signatures were checked before.
    ///
    /// # Errors
    /// See [`Rejection`]. A refusal carries the publisher key where it came and fits.
    fn request(
        &self,
        event: &Event,
        partner: Option<&Event>,
        context: &ReadContext<'_>,
    ) -> Result<(RunRequest, Secrets), Rejection>;

    /// The address of the repository that a request is for, as its events say without effort: who may run there is asked
    /// before the request is read. `None`: only reading it tells.
    fn repository(&self, event: &Event, partner: Option<&Event>) -> Option<String> {
        let _ = (event, partner);
        None
    }

    /// What answering a request needs, as far as its event alone says: enough to refuse it.
    fn origin(&self, event: &Event) -> NostrOrigin;

    /// Why a request is refused whose partner did not come within so many minutes; for its author.
    fn partner_missing(&self, partner: EventId, minutes: u64) -> String;

    /// Name of the secret in which a publisher key comes. It is sealed under that name, and shown to no job.
    fn publisher_secret(&self) -> Option<&'static str> {
        None
    }

    /// The answers to one update of a run, in the order in which relays must get them. `run` is our id of it, under which
    /// its publisher key is kept.
    fn report(&self, run: &RunId, origin: &NostrOrigin, update: &RunUpdate, us: &PublicKey) -> Vec<Draft>;

    /// The answers to a refused request at `stamp` (seconds). What the publisher key signs is signed already; `log` is
    /// where the reason can be read, where such an event is among them.
    fn refuse(&self, refusal: &Refusal, log: Option<&FinalizedLog>, stamp: u64, us: &PublicKey) -> Vec<Draft>;

    /// What asks a relay for our final answers to some requests; `None`: to any.
    fn answer_filters(&self, us: &PublicKey, requests: Option<&[EventId]>) -> Vec<Filter>;

    /// The request that an event of ours is the final answer to, if it is one.
    fn answered(&self, event: &Event, us: &PublicKey) -> Option<EventId>;
}

/// The protocols of a pool. They hold no state, so one value of each serves all.
#[derive(Debug, Clone, Copy)]
pub struct Protocols(&'static [&'static dyn Protocol]);

impl Protocols {
    /// Of several that read one kind or have one name, the first counts.
    pub const fn new(protocols: &'static [&'static dyn Protocol]) -> Self {
        Self(protocols)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'static dyn Protocol> {
        self.0.iter().copied()
    }

    /// The protocol that reads events of a kind.
    pub fn by_kind(self, kind: Kind) -> Option<&'static dyn Protocol> {
        self.iter().find(|protocol| protocol.kinds().contains(&kind.as_u16()))
    }

    /// The protocol that answers an origin.
    pub fn of(self, origin: &NostrOrigin) -> Option<&'static dyn Protocol> {
        self.iter().find(|protocol| protocol.name() == origin.protocol)
    }
}

/// What reading an event depends on besides the event.
#[derive(Debug, Clone, Copy)]
pub struct ReadContext<'a> {
    /// The pool's keys: it is addressed by them, and secrets are encrypted for them.
    pub keys: &'a Keys,
    /// Limits that the operator set.
    pub limits: &'a Limits,
    /// Whether a request may name a program instead of a workflow.
    pub commands: bool,
    /// The time.
    pub now: Millis,
}

/// What an event means.
#[derive(Debug)]
pub enum EventMeaning {
    /// It asks for a run.
    Request {
        /// The event that it is read with; `None`: it is whole.
        partner: Option<EventId>,
    },
    /// Requests may wait for it.
    Partner,
    /// It asks that a repository be served from now on, or no more. Whoever serves it reads what it says, and looks at who
    /// may ask.
    Service,
    /// It gives or removes secrets of a repository. Whoever has the keys that it is encrypted for reads it, and looks at who
    /// may give them.
    SecretUpdate,
    /// Ends the runs of these requests. Whoever knows them checks that their author, or a maintainer, asks for it.
    Cancel(Vec<EventId>),
    /// It becomes nothing.
    Rejected(Rejection),
}

/// Why an event becomes no request.
#[derive(Debug)]
pub enum Rejection {
    /// Counted, not answered.
    Ignored(Ignored),
    /// Answered with a published reason.
    Refused(Box<Refusal>),
}

/// Why an event is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Ignored {
    /// It is not addressed to our key alone.
    NotOurs,
    /// It is not shaped as a job: its kind has other uses.
    NotAJob,
    /// Its run was signed by another key: an answer would speak for somebody else's run.
    ForeignRun,
    /// It breaks a rule of its kind, and no answer is foreseen.
    Malformed,
    /// Its id or signature is wrong.
    Forged,
    /// It was answered before this database knew of it.
    Answered,
    /// Too many jobs wait for their runs, of its author or in sum.
    TooMany,
    /// Too many refusals or cancels at a time.
    OverRate,
    /// Its author may not run here, or is not known, and more such authors asked than are told why they are refused.
    Stranger,
    /// It is longer than any request may be.
    TooLong,
    /// A relay has more events of one second than it gives at a time. Counts for such a second, and not for each event.
    PassedOver,
}

/// A request that is answered and not run.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The events that asked.
    pub origin: NostrOrigin,
    /// The workflow asked for, where it is known.
    pub workflow: String,
    /// For the author: cause and remedy.
    pub reason: String,
    /// The publisher key, where it came and fits: only then an event can be signed with it.
    pub publisher: Option<Keys>,
}

impl Refusal {
    /// Refuses a request of which nothing but the event is known.
    pub fn of_event(protocol: &dyn Protocol, event: &Event, reason: impl Into<String>) -> Self {
        Self::of_origin(protocol.origin(event), reason)
    }

    /// Refuses a request whose events are no longer at hand.
    pub fn of_origin(origin: NostrOrigin, reason: impl Into<String>) -> Self {
        Self { origin, workflow: String::new(), reason: reason.into(), publisher: None }
    }

    /// Refuses a request that was read well: policy, rate, or the same key a second time. `None` for one that did not
    /// come as an event.
    pub fn of_request(request: &RunRequest, secrets: &Secrets, reason: impl Into<String>) -> Option<Self> {
        let origin = request.origin.nostr()?;
        let relays = origin.relays.iter().chain(&request.repository.relays).cloned().collect();
        Some(Self {
            origin: NostrOrigin { relays, ..origin.clone() },
            workflow: request.workflow.clone(),
            reason: reason.into(),
            publisher: secrets.publisher.clone(),
        })
    }
}

/// What came encrypted with a request.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The publisher key, where it came and fits.
    pub publisher: Option<Keys>,
    /// The author's own values by name.
    pub values: Vec<(String, SecretString)>,
}

impl Secrets {
    /// Names of the author's own values.
    pub fn names(&self) -> Vec<String> {
        self.values.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// An event to publish, its id final.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event.
    pub event: UnsignedEvent,
    /// Who signs.
    pub signer: Signer,
    /// The signature, where the key is at hand only now.
    pub signature: Option<Signature>,
}

impl Draft {
    /// An event without content by `author`, dated `stamp` (seconds).
    pub fn new(author: &PublicKey, stamp: u64, kind: u16, tags: Vec<Tag>, signer: Signer) -> Self {
        let mut event = UnsignedEvent::new(*author, Timestamp::from(stamp), Kind::from(kind), tags, "");
        event.ensure_id();
        Self { event, signer, signature: None }
    }

    /// An event of the coordinator's with content.
    pub fn with_content(author: &PublicKey, stamp: u64, kind: u16, tags: Vec<Tag>, content: String) -> Self {
        let mut event = UnsignedEvent::new(*author, Timestamp::from(stamp), Kind::from(kind), tags, content);
        event.ensure_id();
        Self { event, signer: Signer::Coordinator, signature: None }
    }

    /// Signs now: for a key that is about to be forgotten.
    ///
    /// # Errors
    /// The key is not the event's.
    pub fn sign(&mut self, keys: &Keys) -> Result<(), nostr::event::Error> {
        self.signature = Some(self.event.clone().sign_with_keys(keys)?.sig);
        Ok(())
    }
}
