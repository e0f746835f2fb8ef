//! Where things lie in a container.

/// Folder of our first process.
pub(super) const INIT_DIRECTORY: &str = "/longshore/bin";
/// Its name there.
pub(super) const INIT_NAME: &str = "longshore-init";
/// Both.
pub(super) const INIT_PATH: &str = "/longshore/bin/longshore-init";
/// Workspace of a job, a volume.
pub(super) const WORKSPACE: &str = "/workspace";
/// Scripts, command files, event payloads.
pub(super) const TEMP: &str = "/longshore/temp";
