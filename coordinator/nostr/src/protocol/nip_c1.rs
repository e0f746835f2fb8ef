//! NIP-C1: coordinators, services of repositories, and the results of runs and their jobs. Pure.
//!
//! What an event must say to be taken is the reader's part here: each kind has a type whose `read` checks every rule and says
//! which one is broken. What we say is made as drafts, whose readers are as strict.
//!
//! The numbers of the kinds are those of a draft, and stand in this module alone.

pub use self::{
    availability::{AdmissionPolicy, Offer, RepositoryService, advertisement, readiness, withdrawal},
    event_tags::Malformed,
    manual_trigger::ManualTrigger,
    report::{EndWord, JobEnd, LIVE_JOB_TAIL, Provenance, QuotedJob, RESULT_TAIL, RunReport, Stage},
    run_subject::{PullRequestContext, RepositoryAddress, RunContext, RunSubject, StartedBy, WorkflowFile},
    secret_update::{SecretOperations, SecretUpdate, SecretsKeys, UpdateOrder},
    service_control::{ServiceControl, standing_request},
};

mod availability;
mod event_tags;
mod manual_trigger;
mod report;
mod run_subject;
mod secret_update;
mod service_control;

/// Request to run one workflow once.
pub const MANUAL_TRIGGER: u16 = 9840;
/// Result of a job.
pub const JOB_RESULT: u16 = 9841;
/// Result of a run.
pub const WORKFLOW_RESULT: u16 = 9842;
/// Request for standing service.
pub const SERVICE_REQUEST: u16 = 9843;
/// Its end.
pub const SERVICE_STOP: u16 = 9844;
/// Advertisement of a coordinator, replaceable.
pub const ADVERTISEMENT: u16 = 19843;
/// Repositories that may ask for service, replaceable.
pub const READINESS: u16 = 19844;
/// Secrets of a maintainer, ephemeral.
pub const SECRET_UPDATE: u16 = 29846;
/// Ends of the logs of a run, addressable by its id.
pub const LIVE_TAIL: u16 = 39841;
/// Progress of a run, addressable by its id.
pub const PROGRESS: u16 = 39842;
/// Status of a repository, addressable by its address.
pub const REPOSITORY_STATUS: u16 = 39844;

/// How long (s) an advertisement, a run's progress and the ends of logs may live; and lists and statuses.
pub const LONGEST_ADVERTISED: u64 = 30 * 60;
/// How long (s) the list of readiness and a repository's status may live.
pub const LONGEST_STATUS: u64 = 86_400;

/// Name of the protocol in stored runs.
pub const NAME: &str = "nip_c1";

#[cfg(test)]
mod tests;
