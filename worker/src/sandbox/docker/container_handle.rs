//! Owns one container: it is removed with its handle.

use std::sync::Arc;

use super::job_resources::JobResources;

/// One container of a job, from before it is made.
pub(super) struct ContainerHandle {
    pub(super) resources: Arc<JobResources>,
    pub(super) name: String,
}

impl ContainerHandle {
    pub(super) fn new(resources: &Arc<JobResources>) -> Self {
        Self { resources: Arc::clone(resources), name: resources.next_name() }
    }
}

impl Drop for ContainerHandle {
    fn drop(&mut self) {
        self.resources.remove(std::mem::take(&mut self.name));
    }
}
