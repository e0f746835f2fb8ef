//! What one subsystem asks of another, one file for each port.

pub(crate) mod actions_api;
mod dispatch;
pub(crate) mod job_repository;
pub(crate) mod object_source;
pub(crate) mod operator_api;
pub(crate) mod profiles;
pub(crate) mod relay_lookup;
