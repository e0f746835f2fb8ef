//! Keys and ids of jobs: how the place of a job in the tree of called workflows is written.
//!
//! An id is the path of job ids from the run's own file down: `build`, or `caller/build`. A key adds the matrix leg of
//! each: `build`, `build/0`, `caller/1/build`.

/// Returns the key of a job, or of a call, of the file that `parent_call` called.
pub(super) fn job_key(parent_call: &str, id: &str) -> String {
    if parent_call.is_empty() { id.to_owned() } else { format!("{parent_call}/{id}") }
}

/// Returns an id as it is written in its own file.
pub(super) fn job_id(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// Returns the id of the job of the run's own file that a job or call belongs to.
pub(super) fn root_id(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}

/// Whether a job belongs to a call, at any depth.
pub(super) fn is_within(key: &str, call: &str) -> bool {
    key.strip_prefix(call).is_some_and(|rest| rest.starts_with('/'))
}
