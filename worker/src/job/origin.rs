//! The way from a job's programs to the services that actions call, and the variables that tell it.

mod client;

use std::sync::Arc;

use futures::future::BoxFuture;
use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{io::DuplexStream, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::client::Client;
use crate::sandbox::{Machine, ORIGIN_HOST, ORIGIN_PORT, Port, SandboxError};

/// The services that actions call, as one attempt has them.
#[derive(Clone)]
pub struct Access {
    /// Its token.
    pub token: SecretString,
    /// It may ask for OIDC tokens.
    pub id_token: bool,
    /// Where they are.
    pub door: Arc<dyn Door>,
}

/// Leads connections to the services.
pub trait Door: Send + Sync {
    /// Serves one connection (HTTP/1.1) to its end.
    fn serve(&self, connection: DuplexStream) -> BoxFuture<'static, ()>;
}

/// An open way; dropped, its connections break.
pub(super) struct Way {
    url: String,
    _leading: AbortOnDropHandle<()>,
}

impl Way {
    /// Opens it in a machine.
    pub(super) async fn open(access: &Access, machine: &dyn Machine) -> Result<Self, SandboxError> {
        let port = machine.listen().await?;
        let host = if port.number == ORIGIN_PORT { ORIGIN_HOST } else { "127.0.0.1" };
        let url = format!("http://{host}:{}", port.number);
        let leading = tokio::spawn(lead(port, Arc::clone(&access.door)));
        Ok(Self { url, _leading: AbortOnDropHandle::new(leading) })
    }

    /// What programs of actions are told (as GitHub's runner tells them).
    pub(super) fn variables(&self, access: &Access) -> IndexMap<String, String> {
        let Self { url, .. } = self;
        let token = access.token.expose_secret();
        let mut variables: IndexMap<String, String> = [
            ("ACTIONS_RUNTIME_URL", format!("{url}/")),
            ("ACTIONS_RUNTIME_TOKEN", token.to_owned()),
            ("ACTIONS_RESULTS_URL", format!("{url}/")),
            ("ACTIONS_CACHE_URL", format!("{url}/")),
            ("ACTIONS_CACHE_SERVICE_V2", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
        variables.extend(self.for_every_step(access));
        variables
    }

    /// What every step is told.
    pub(super) fn for_every_step(&self, access: &Access) -> IndexMap<String, String> {
        if !access.id_token {
            return IndexMap::new();
        }
        let url = format!("{}/oidc/token?api-version=2.0", self.url);
        let token = access.token.expose_secret().to_owned();
        IndexMap::from([
            ("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), token),
        ])
    }
}

async fn lead(mut port: Port, door: Arc<dyn Door>) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            connection = port.connections.recv() => match connection {
                Some(connection) => {
                    serving.spawn(door.serve(connection));
                }
                None => return,
            },
            Some(_) = serving.join_next() => {}
        }
    }
}
