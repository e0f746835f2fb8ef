//! Authentication of workers: identities, challenges, attempt tokens and enrolment tokens.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use futures::TryStreamExt as _;
use proto::worker::{Challenge, Register, ToWorker, from_worker, to_worker};
use ring::{hmac, signature};
use sha2::{Digest, Sha256};
use tonic::Status;

use super::{
    Inner,
    connection::{WorkerInbound, WorkerOutbound},
};
use domain::run::{AttemptId, Millis};
use store::{Change, StoreError, WorkerRow};

/// Longest wait for each message of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Labels of a worker, and bytes of each.
const LABELS: usize = 64;
const LABEL: usize = 256;
/// Characters of its name that are kept.
const NAME: usize = 64;

/// Id of a worker in the pool: the first 16 hex of its identity's SHA-256.
pub fn worker_id(identity: &[u8]) -> String {
    hex::encode(Sha256::digest(identity)).chars().take(16).collect()
}

/// Makes and checks tokens. They are computed, not stored, so they outlive a restart and serve every coordinator.
pub(super) struct Tokens(hmac::Key);

impl Tokens {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Token of one attempt in the hands of one worker.
    pub(super) fn attempt(&self, attempt: &AttemptId, worker: &str) -> String {
        hex::encode(hmac::sign(&self.0, &attempt_text("attempt", attempt, &[worker])))
    }

    pub(super) fn is_attempt(&self, token: &str, attempt: &AttemptId, worker: &str) -> bool {
        let text = attempt_text("attempt", attempt, &[worker]);
        hex::decode(token).is_ok_and(|tag| hmac::verify(&self.0, &text, &tag).is_ok())
    }

    /// Says that a repository was resolved for an attempt in the hands of one worker.
    pub(super) fn grant(&self, attempt: &AttemptId, worker: &str, repository: &str) -> Bytes {
        let text = attempt_text("repository of attempt", attempt, &[worker, repository]);
        Bytes::copy_from_slice(hmac::sign(&self.0, &text).as_ref())
    }

    pub(super) fn is_grant(&self, grant: &[u8], attempt: &AttemptId, worker: &str, repository: &str) -> bool {
        let text = attempt_text("repository of attempt", attempt, &[worker, repository]);
        hmac::verify(&self.0, &text, grant).is_ok()
    }

    pub(super) fn enrolment(&self, until: Millis, nonce: [u8; 16]) -> String {
        let id = hex::encode(nonce);
        let tag = hex::encode(hmac::sign(&self.0, &enrolment_text(&id, until)));
        format!("{id}.{until}.{tag}")
    }

    /// The id of an enrolment token of ours that has not run out.
    pub(super) fn is_enrolment(&self, token: &str, now: Millis) -> Option<String> {
        let mut parts = token.trim().splitn(3, '.');
        let (id, until, tag) = (parts.next()?, parts.next()?.parse().ok()?, hex::decode(parts.next()?).ok()?);
        let ours = hmac::verify(&self.0, &enrolment_text(id, until), &tag).is_ok();
        (ours && now < until).then(|| id.to_owned())
    }
}

/// Each field is preceded by its length, so that no two attempts have the same text.
fn attempt_text(purpose: &str, attempt: &AttemptId, more: &[&str]) -> Vec<u8> {
    let number = attempt.number.to_string();
    let mut text = purpose.as_bytes().to_vec();
    for field in [attempt.run.as_str(), attempt.job.as_str(), &number].iter().chain(more) {
        text.extend((field.len() as u64).to_be_bytes());
        text.extend(field.as_bytes());
    }
    text
}

fn enrolment_text(id: &str, until: Millis) -> Vec<u8> {
    format!("enrolment {id} {until}").into_bytes()
}

/// The handshake: Register, Challenge, Proof. The identity must be enrolled or configured, or bring an enrolment token.
pub(super) async fn authenticate(
    inner: &Inner,
    inbound: &mut WorkerInbound,
    out: &WorkerOutbound,
) -> Result<(Register, WorkerRow), Status> {
    let Some(from_worker::Message::Register(register)) = next(inbound).await? else {
        return Err(Status::invalid_argument("a session begins with Register"));
    };
    let identity = hex::decode(&register.identity)
        .ok()
        .filter(|key| key.len() == signature::ED25519_PUBLIC_KEY_LEN)
        .ok_or_else(|| Status::invalid_argument("the worker's identity is not an Ed25519 public key in hex"))?;

    let nonce: [u8; 32] = rand::random();
    let challenge = to_worker::Message::Challenge(Challenge { nonce: Bytes::copy_from_slice(&nonce) });
    let challenge = ToWorker { message: Some(challenge) };
    out.send(Ok(challenge)).await.map_err(|_| Status::cancelled("the worker went away"))?;
    let Some(from_worker::Message::Proof(proof)) = next(inbound).await? else {
        return Err(Status::invalid_argument("a challenge is answered with Proof"));
    };
    signature::UnparsedPublicKey::new(&signature::ED25519, &identity)
        .verify(&[proto::SESSION_CONTEXT, &nonce].concat(), &proof.signature)
        .map_err(|_| Status::unauthenticated("the worker does not have the key of the identity it named"))?;

    let row = enrolled(inner, &register, &worker_id(&identity)).await.map_err(|error| {
        error.downcast::<Refused>().map_or_else(
            |error| Status::unavailable(format!("workers can't be looked up: {error:#}")),
            |refused| Status::permission_denied(refused.0),
        )
    })?;
    Ok((register, row))
}

/// Why a worker may not join, with what its operator can do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Whether what a worker says of itself is within bounds: everybody sees it, and it decides who gets the jobs.
fn check(register: &Register, slots: u32) -> Result<(), Refused> {
    if register.slots > slots {
        return Err(Refused(format!(
            "slots = {}: a worker of this pool has at most {slots}; set fewer, or have the operator raise \
             limits.worker_slots",
            register.slots
        )));
    }
    if register.labels.len() > LABELS || register.labels.iter().any(|label| label.len() > LABEL) {
        return Err(Refused(format!(
            "a worker has at most {LABELS} labels of {LABEL} bytes: set fewer or shorter ones"
        )));
    }
    Ok(())
}

/// A worker's name as everybody sees it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

async fn enrolled(inner: &Inner, register: &Register, id: &str) -> anyhow::Result<WorkerRow> {
    let (store, now) = (&inner.config.store, (inner.config.clock)());
    check(register, inner.config.worker_slots)?;
    let known = store.worker(id).await?.filter(|row| row.identity == register.identity);
    let row = WorkerRow {
        id: id.to_owned(),
        identity: register.identity.clone(),
        name: if register.name.is_empty() { id.to_owned() } else { shown(&register.name) },
        labels: register.labels.clone(),
        slots: register.slots,
        seen_at: now,
        draining: known.as_ref().is_some_and(|row| row.draining),
    };
    if known.is_some() || inner.config.configured_workers.contains(&register.identity) {
        store.commit(vec![Change::Worker(row.clone())]).await?;
        // It may have been drained since it was looked up.
        return Ok(store.worker(id).await?.unwrap_or(row));
    }
    ensure!(
        !register.token.is_empty(),
        Refused(format!(
            "unknown worker identity {}: add it to `workers` in the coordinator's configuration, or set `token` in \
             the worker's to one that `longshore workers token` printed",
            register.identity
        ))
    );
    let token = inner.tokens.is_enrolment(&register.token, now).ok_or_else(|| {
        Refused("the enrolment token is not ours or ran out: `longshore workers token` prints a new one".into())
    })?;
    let used = Change::Seen { id: format!("enrolment {token}"), at: now };
    match store.commit(vec![used, Change::Worker(row.clone())]).await {
        Ok(()) => Ok(row),
        Err(StoreError::Seen(_)) => {
            Err(Refused("the enrolment token was used before: `longshore workers token` prints a new one".into())
                .into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn next(inbound: &mut WorkerInbound) -> Result<Option<from_worker::Message>, Status> {
    let message = tokio::time::timeout(HANDSHAKE, inbound.try_next())
        .await
        .map_err(|_| Status::deadline_exceeded("the worker sent no message of the handshake within 10 s"))??;
    Ok(message.and_then(|message| message.message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn attempt(run: &str, job: &str, number: u32) -> AttemptId {
        AttemptId { run: run.into(), job: job.into(), number }
    }

    #[test]
    fn an_attempt_token_serves_one_attempt_of_one_worker() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.attempt(&attempt("r", "build", 1), "w");
        assert!(tokens.is_attempt(&token, &attempt("r", "build", 1), "w"));
        for (other, worker) in [
            (attempt("r", "build", 2), "w"),
            (attempt("r", "test", 1), "w"),
            (attempt("rb", "uild", 1), "w"),
            (attempt("r", "build", 1), "v"),
        ] {
            assert!(!tokens.is_attempt(&token, &other, worker), "{other:?} {worker}");
        }
        assert!(!Tokens::new(&[8; 32]).is_attempt(&token, &attempt("r", "build", 1), "w"));
        assert!(!tokens.is_attempt("", &attempt("r", "build", 1), "w"));
    }

    #[test]
    fn a_grant_serves_one_repository_in_one_attempt_of_one_worker() {
        let tokens = Tokens::new(&[7; 32]);
        let grant = tokens.grant(&attempt("r", "build", 1), "w", "repository");
        assert!(tokens.is_grant(&grant, &attempt("r", "build", 1), "w", "repository"));
        for (other, worker, repository) in [
            (attempt("r", "build", 1), "w", "other"),
            (attempt("r", "build", 1), "v", "repository"),
            (attempt("r", "build", 1), "wr", "epository"),
            (attempt("r", "build", 2), "w", "repository"),
            (attempt("s", "build", 1), "w", "repository"),
        ] {
            assert!(!tokens.is_grant(&grant, &other, worker, repository), "{other:?} {worker} {repository}");
        }
        let token = hex::decode(tokens.attempt(&attempt("r", "build", 1), "w")).unwrap();
        assert!(!tokens.is_grant(&token, &attempt("r", "build", 1), "w", ""), "a token is no grant");
    }

    #[test]
    fn an_enrolment_token_is_ours_and_runs_out() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.enrolment(1000, [1; 16]);
        assert_eq!(tokens.is_enrolment(&token, 999).unwrap(), hex::encode([1; 16]));
        assert_eq!(tokens.is_enrolment(&token, 1000), None);
        assert_eq!(tokens.is_enrolment(&token.replace(".1000.", ".9000."), 999), None);
        assert_eq!(Tokens::new(&[8; 32]).is_enrolment(&token, 999), None);
        for wrong in ["", "a", "a.b.c", "..", "a.1.zz"] {
            assert_eq!(tokens.is_enrolment(wrong, 0), None, "{wrong}");
        }
    }
}
