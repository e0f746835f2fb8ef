//! What a run begins as.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::id::RunId;

use super::{
    EnvironmentProtection, Millis, Rerun, RunEffect, RunPhase, RunRequest, RunRules, RunState, RunUpdate, Visibility,
    transition::Transition,
};

/// What a new run is made of.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// UUID v7.
    pub id: RunId,
    /// Unique in the store.
    pub serial: u64,
    /// Number among the runs of its workflow; a rerun keeps that of the earlier run.
    pub number: u64,
    /// The run this one repeats.
    pub rerun: Option<Rerun>,
    /// What asked for it.
    pub request: RunRequest,
    /// Names of the secrets that came with it.
    pub secrets: Vec<String>,
    /// The operator's rules.
    pub rules: RunRules,
    /// Environments of its repository that the operator protects.
    pub environments: Vec<EnvironmentProtection>,
    /// Who may read it.
    pub visibility: Visibility,
    /// When its data may be removed.
    pub expires_at: Millis,
}

/// A new run and what is to be done first.
pub fn create(new: NewRun, now: Millis) -> (RunState, Vec<RunEffect>) {
    let state = RunState {
        id: new.id,
        version: 0,
        serial: new.serial,
        number: new.rerun.as_ref().map_or(new.number, |rerun| rerun.number),
        attempt: new.rerun.as_ref().map_or(1, |rerun| rerun.attempt),
        rerun: new.rerun.map(Arc::new),
        request: Arc::new(new.request),
        planned: None,
        phase: RunPhase::Planning,
        claim: None,
        gate: None,
        jobs: IndexMap::new(),
        calls: IndexMap::new(),
        cancelled: None,
        answered: false,
        expired_at: None,
        message: None,
        delayed: None,
        secrets: !new.secrets.is_empty(),
        secret_names: new.secrets,
        rules: new.rules,
        environments: new.environments,
        visibility: new.visibility,
        expires_at: new.expires_at,
        created_at: now,
        started_at: None,
        paused_at: None,
        paused_ms: 0,
        report_bytes: 0,
        stamped_at: 0,
    };
    let mut transition = Transition { state, now, effects: Vec::new() };
    let stamp = transition.stamp();
    transition.effects.push(RunEffect::Publish(RunUpdate::Queued { stamp }));
    transition.effects.push(RunEffect::Plan);
    (transition.state, transition.effects)
}
