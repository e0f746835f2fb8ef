//! One running container as a [`Machine`].

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};

use super::{container::Holding, image::Image};
use crate::sandbox::{Command, Exit, Machine, ORIGIN_PORT, OutputSink, Port, SandboxError, conversation::Conversation};

/// Workspace of a job, a volume.
pub(super) const WORKSPACE: &str = "/workspace";
/// Scripts, command files, event payloads.
pub(super) const TEMP: &str = "/longshore/temp";

pub(super) struct DockerMachine {
    /// Taken by `destroy`.
    holding: Mutex<Option<Holding>>,
    image: Arc<Image>,
    conversation: Conversation,
    home: String,
}

impl DockerMachine {
    pub(super) fn new(holding: Holding, image: Arc<Image>, conversation: Conversation, home: String) -> Self {
        Self { holding: Mutex::new(Some(holding)), image, conversation, home }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.conversation.is_lost()
    }
}

impl Machine for DockerMachine {
    fn image_digest(&self) -> Option<String> {
        self.image.digest.clone()
    }

    fn image_environment(&self) -> Vec<(String, String)> {
        self.image.environment.clone()
    }

    fn workspace(&self) -> String {
        WORKSPACE.into()
    }

    fn temp(&self) -> String {
        TEMP.into()
    }

    fn home(&self) -> String {
        self.home.clone()
    }

    fn run<'a>(&'a self, command: Command, output: &'a dyn OutputSink) -> BoxFuture<'a, Result<Exit, SandboxError>> {
        self.conversation.run(command, output).boxed()
    }

    fn signal(&self, signal: i32) -> BoxFuture<'_, ()> {
        self.conversation.signal(signal).boxed()
    }

    fn unpack<'a>(
        &'a self,
        directory: &'a str,
        clean: bool,
        archive: BoxStream<'a, std::io::Result<Bytes>>,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.conversation.unpack(directory, clean, archive).boxed()
    }

    fn read<'a>(
        &'a self,
        paths: &'a [String],
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<(String, Bytes)>, SandboxError>> {
        self.conversation.read(paths, limit, "").boxed()
    }

    fn hash_files<'a>(&'a self, patterns: &'a [String]) -> BoxFuture<'a, Result<Option<String>, SandboxError>> {
        self.conversation.hash(WORKSPACE, patterns).boxed()
    }

    /// Returns at once: removing takes the engine 100 ms, and nobody has to wait for it. `Sandbox::close` does.
    fn listen(&self) -> BoxFuture<'_, Result<Port, SandboxError>> {
        self.conversation.listen(ORIGIN_PORT).boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        drop(self.holding.lock().unwrap_or_else(PoisonError::into_inner).take());
        std::future::ready(()).boxed()
    }
}
