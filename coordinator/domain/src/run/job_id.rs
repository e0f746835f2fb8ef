//! Ids of jobs: the path of job ids from the run's own file down, such as `build`, or `caller/build`.

/// Returns an id as it is written in its own file.
pub(super) fn job_id(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// Returns the id of the job of the run's own file that a job or call belongs to.
pub(super) fn root_id(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}
