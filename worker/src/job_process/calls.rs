//! What a job's process asks of the worker's sandbox, and what it gets.

use serde::{Deserialize, Serialize};

use crate::sandbox::{
    DiskBreach, ImageProgram, MachineDescription, MachineSpec, SandboxError,
    service::{ServiceSpec, ServiceState},
};

/// What is asked. Machines are named by the number that their start gave them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum MachineCall {
    Start(Box<MachineSpec>),
    StartServices { machine: u64, specs: Vec<ServiceSpec> },
    ServiceState { machine: u64, service: usize },
    ServiceLines { machine: u64, service: usize },
    CreateContainer { machine: u64, spec: Box<MachineSpec>, workspace: bool },
    Pack { machine: u64, path: String },
    CommitImage { machine: u64, name: String, program: Box<ImageProgram> },
    WatchDisk { machine: u64, limit: u64 },
    Complaint { machine: u64 },
    Destroy { machine: u64 },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum MachineReply {
    Failed(SandboxError),
    /// A socket to its first process comes with it.
    Started {
        machine: u64,
        description: Box<MachineDescription>,
    },
    Services(Vec<ServiceDescription>),
    State(ServiceState),
    Text(Option<String>),
    /// A socket with the file comes with it.
    Packed,
    DiskBreach(DiskBreach),
    Done,
}

/// A service that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ServiceDescription {
    pub(super) id: String,
    pub(super) network: String,
    pub(super) address: String,
}
