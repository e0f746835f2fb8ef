//! Manual trigger (9840): a maintainer asks for one workflow at one commit, by the hash of its file.

use nostr::{Event, PublicKey};

use super::{
    MANUAL_TRIGGER,
    event_tags::{EventTags, Malformed, key},
    run_subject::RunSubject,
};

/// A request to run one workflow once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualTrigger {
    /// The coordinator that it is for.
    pub coordinator: PublicKey,
    /// What is to be run.
    pub subject: RunSubject,
}

impl ManualTrigger {
    /// Reads an event. Its id and signature were checked before.
    ///
    /// # Errors
    /// It is not shaped as one, or offers a payment.
    pub fn read(event: &Event) -> Result<Self, Malformed> {
        let tags = EventTags::new(event);
        if event.kind.as_u16() != MANUAL_TRIGGER {
            return Err(Malformed::Unsupported("it is no manual trigger (kind 9840)"));
        }
        tags.without_content()?;
        tags.without_payment()?;
        // Whatever it stands for, it is run by hand now.
        tags.without(&["o"])?;
        let coordinator = key("p", tags.value("p")?)?;
        Ok(Self { coordinator, subject: RunSubject::read(tags)? })
    }
}
