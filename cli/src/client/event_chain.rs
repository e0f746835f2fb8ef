//! The signed chain of one run: 5401 → 5100 → 30100, 5101, 5402, and what must hold in it.
//!
//! Pure: events go in, a list of checks comes out.

use std::collections::BTreeMap;

use nostr::{Event, Kind, PublicKey};

use super::chain_check::{BlobClaim, ChainCheck};

const RUN: u16 = 5401;
const JOB: u16 = 5100;
const STATUS: u16 = 30100;
const RESULT: u16 = 5101;
const WORKFLOW_RESULT: u16 = 5402;

/// The events of one run, in the order of their making.
#[derive(Debug)]
pub(crate) struct EventChain {
    /// The events.
    pub events: Vec<Event>,
    run: Event,
    job: Event,
}

impl EventChain {
    /// Picks the chain that belongs to a run (5401) or job (5100) out of any events.
    pub(crate) fn assemble(events: Vec<Event>, id: &str) -> Result<Self, String> {
        let find = |kind: u16, test: &dyn Fn(&Event) -> bool| {
            events.iter().find(|event| event.kind == Kind::from(kind) && test(event)).cloned()
        };
        let named_job = find(JOB, &|event| event.id.to_hex() == id);
        let run_id = named_job.as_ref().map_or_else(|| id.to_owned(), |job| tag_value(job, "e"));
        let run = find(RUN, &|event| event.id.to_hex() == run_id)
            .ok_or_else(|| format!("no run event (5401) {run_id} was found: name a relay that has it with --relay"))?;
        // Anyone can attach a job to a run: only one by the run's author counts.
        let job = named_job
            .or_else(|| find(JOB, &|event| tag_value(event, "e") == run_id && event.pubkey == run.pubkey))
            .ok_or_else(|| format!("no job event (5100) of run {run_id} was found"))?;
        let job_id = job.id.to_hex();
        let mut chain: BTreeMap<_, Event> = BTreeMap::new();
        for event in events {
            let kind = event.kind.as_u16();
            let about = tag_value(&event, "e");
            let belongs = event.id == run.id
                || event.id == job.id
                || (matches!(kind, STATUS | RESULT) && about == job_id)
                || (kind == WORKFLOW_RESULT && about == run_id);
            if belongs {
                chain.insert((rank(kind, &tag_value(&event, "status")), event.created_at, event.id), event);
            }
        }
        Ok(Self { events: chain.into_values().collect(), run, job })
    }

    /// Checks ids, signatures and every link.
    pub(crate) fn check(&self) -> Vec<ChainCheck> {
        let mut checks = Vec::new();
        let mut hold = |what: String, holds: bool, problem: &str| {
            checks.push(ChainCheck { what, problem: (!holds).then(|| problem.to_owned()) });
        };
        for event in &self.events {
            hold(describe(event), event.verify().is_ok(), "id or signature is wrong");
        }
        let worker = tag_value(&self.job, "p");
        let publisher = tag_value(&self.run, "publisher");
        let author = self.run.pubkey;
        hold("the job is by the run's author".into(), self.job.pubkey == author, "another key signed it");
        hold(
            "the job belongs to the run".into(),
            tag_value(&self.job, "e") == self.run.id.to_hex(),
            "it names another run",
        );
        for event in self.of(STATUS).chain(self.of(RESULT)) {
            let what = format!("{} is by the worker the job names, to its author", event.kind.as_u16());
            let holds = is_by(event, &worker) && tag_value(event, "p") == author.to_hex();
            hold(what, holds, "signer or addressee is another");
        }
        for event in self.of(WORKFLOW_RESULT) {
            hold("5402 is by the publisher key of the run".into(), is_by(event, &publisher), "another key signed it");
        }
        hold(
            "there is exactly one job result (5101)".into(),
            self.of(RESULT).count() == 1,
            "there is none, or several",
        );
        let last = self.of(STATUS).last().map(|event| tag_value(event, "status")).unwrap_or_default();
        let succeeded = self.of(RESULT).any(|event| tag_value(event, "success") == "true");
        let ended = !matches!(last.as_str(), "" | "queued" | "running");
        hold(format!("the last status is final: {last}"), ended, "the run has not ended");
        hold("status and result agree".into(), (last == "completed") == succeeded, "they contradict each other");
        if let Some(result) = self.of(WORKFLOW_RESULT).last() {
            let agrees = (tag_value(result, "status") == "success") == succeeded;
            hold("job result and workflow result agree".into(), agrees, "they contradict each other");
        }
        checks
    }

    /// The log that the results name.
    pub(crate) fn log(&self) -> Option<BlobClaim> {
        let named = self.of(WORKFLOW_RESULT).map(|event| tag_value(event, "log_url"));
        let url = named.chain(self.of(RESULT).map(|event| tag_value(event, "stdout"))).find(|url| !url.is_empty())?;
        Some(BlobClaim::new("the log".into(), url, None))
    }

    fn of(&self, kind: u16) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter().filter(move |event| event.kind == Kind::from(kind))
    }
}

/// One line for people: kind, id, and the status where there is one.
pub(crate) fn describe(event: &Event) -> String {
    let status = ["status", "success"].map(|name| tag_value(event, name)).into_iter().find(|text| !text.is_empty());
    let status = match (event.kind.as_u16(), status) {
        (RESULT, Some(success)) => format!("success={success}"),
        (_, Some(status)) => status,
        (_, None) => String::new(),
    };
    format!("{:<6}{} {status}", event.kind.as_u16(), event.id.to_hex()).trim_end().to_owned()
}

fn rank(kind: u16, status: &str) -> u8 {
    match (kind, status) {
        (RUN, _) => 0,
        (JOB, _) => 1,
        (STATUS, "queued") => 2,
        (STATUS, "running") => 3,
        (RESULT, _) => 4,
        (WORKFLOW_RESULT, _) => 5,
        _ => 6,
    }
}

fn is_by(event: &Event, key: &str) -> bool {
    PublicKey::from_hex(key).is_ok_and(|key| event.pubkey == key)
}

/// The first value of a tag, or nothing.
pub(crate) fn tag_value(event: &Event, name: &str) -> String {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    let found = tags.filter(|tag| tag.first().is_some_and(|first| first == name)).find_map(|tag| tag.get(1));
    found.cloned().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nostr::{EventBuilder, Keys, Tag, Timestamp};

    fn event(keys: &Keys, kind: u16, at: u64, tags: &[[&str; 2]]) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(*tag).unwrap());
        let builder = EventBuilder::new(Kind::from(kind), "").tags(tags).custom_created_at(Timestamp::from(at));
        builder.sign_with_keys(keys).unwrap()
    }

    struct TestKeys {
        author: Keys,
        worker: Keys,
        publisher: Keys,
    }

    fn chain(keys: &TestKeys, workflow_signer: &Keys, success: &str) -> Vec<Event> {
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let (author, worker) = (hex(&keys.author), hex(&keys.worker));
        let run = event(&keys.author, RUN, 1, &[["publisher", &hex(&keys.publisher)]]);
        let run_id = run.id.to_hex();
        let job = event(&keys.author, JOB, 2, &[["p", &worker], ["e", &run_id]]);
        let id = job.id.to_hex();
        let answer = |kind, at, tag| event(&keys.worker, kind, at, &[["e", &id], ["p", &author], tag]);
        let result = event(workflow_signer, WORKFLOW_RESULT, 5, &[["e", &run_id], ["status", "success"]]);
        vec![
            answer(STATUS, 6, ["status", "completed"]),
            answer(RESULT, 5, ["success", success]),
            result,
            answer(STATUS, 3, ["status", "queued"]),
            answer(STATUS, 4, ["status", "running"]),
            job,
            run,
        ]
    }

    fn problems(events: Vec<Event>, id: &str) -> Vec<String> {
        let chain = EventChain::assemble(events, id).unwrap();
        chain.check().into_iter().filter(|check| check.problem.is_some()).map(|check| check.what).collect()
    }

    #[test]
    fn a_whole_chain_holds_and_stands_in_the_order_of_its_making() {
        let keys = TestKeys { author: Keys::generate(), worker: Keys::generate(), publisher: Keys::generate() };
        let events = chain(&keys, &keys.publisher, "true");
        let run = events.last().unwrap().id.to_hex();
        let assembled = EventChain::assemble(events.clone(), &run).unwrap();
        let kinds: Vec<u16> = assembled.events.iter().map(|event| event.kind.as_u16()).collect();
        assert_eq!(kinds, [RUN, JOB, STATUS, STATUS, RESULT, WORKFLOW_RESULT, STATUS]);
        assert!(problems(events, &run).is_empty());
    }

    #[test]
    fn a_forged_or_contradicting_link_is_named() {
        let keys = TestKeys { author: Keys::generate(), worker: Keys::generate(), publisher: Keys::generate() };
        let forged = chain(&keys, &Keys::generate(), "true");
        let id = forged.last().unwrap().id.to_hex();
        assert_eq!(problems(forged, &id), ["5402 is by the publisher key of the run"]);
        let contradicting = chain(&keys, &keys.publisher, "false");
        let id = contradicting.last().unwrap().id.to_hex();
        assert_eq!(problems(contradicting, &id), ["status and result agree", "job result and workflow result agree"]);
        let mut tampered = chain(&keys, &keys.publisher, "true");
        tampered[2].content = "x".into();
        let id = tampered.last().unwrap().id.to_hex();
        assert_eq!(problems(tampered, &id).len(), 1);
    }
}
