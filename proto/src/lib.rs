//! The messages between Longshore's processes: generated types, and the limits that both ends check.
//!
//! No I/O of its own. The `.proto` files in `v1/` are the documentation of the messages.

/// Coordinator and worker (`v1/worker.proto`).
pub mod worker {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("longshore.worker.v1");
}

/// Worker and the first process of a job's container (`v1/init.proto`).
pub mod init {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("longshore.init.v1");
}

/// Worker and the process of one of its jobs (`v1/job_process.proto`).
pub mod job_process {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("longshore.job_process.v1");
}

mod codec;
mod init_protocol;

pub use codec::StreamCodec;
pub use init_protocol::{INIT_MESSAGE_LIMIT, INIT_PROTOCOL, TUNNEL_CONNECTIONS, TUNNEL_WINDOW};

/// Longest message between coordinator and worker, in bytes.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// Longest report of a job, in bytes: what else its message holds is small.
pub const REPORT_LIMIT: usize = MESSAGE_LIMIT - 64 * 1024;
/// Longest message to a job's process, in bytes: a job, and what goes with it.
pub const TO_JOB_PROCESS_LIMIT: usize = MESSAGE_LIMIT + 1024 * 1024;
/// Longest message from a job's process, in bytes: a report.
pub const FROM_JOB_PROCESS_LIMIT: usize = MESSAGE_LIMIT;
/// Largest log chunk, in bytes.
pub const LOG_CHUNK_LIMIT: usize = 256 * 1024;
/// What a worker signs, followed by the nonce of the challenge.
pub const SESSION_CONTEXT: &[u8] = b"longshore worker session";
/// `LogRecord.step` of what happens before the first step.
pub const STEP_SETUP: i32 = -1;
/// `LogRecord.step` of what happens after the last step.
pub const STEP_CLEANUP: i32 = -2;
