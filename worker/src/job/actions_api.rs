//! The way from a job's programs to the services that actions call, and the variables that tell it.

mod check_runs;
mod client;
mod name_check;

use std::sync::Arc;

use futures::future::BoxFuture;
use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{io::DuplexStream, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::{check_runs::CheckRuns, client::ActionsApiClient};
use crate::log::mask::Masker;
use crate::sandbox::{ACTIONS_API_HOST, ACTIONS_API_PORT, LoopbackPort, Machine, SandboxError};

/// The services that actions call, as one attempt has them.
#[derive(Clone)]
pub struct ActionsApiAccess {
    /// Its token.
    pub token: SecretString,
    /// It may ask for OIDC tokens.
    pub id_token: bool,
    /// Where they are.
    pub tunnel: Arc<dyn Tunnel>,
}

/// Leads connections to the services.
pub trait Tunnel: Send + Sync {
    /// Serves one connection (HTTP/1.1) to its end.
    fn serve(&self, connection: DuplexStream) -> BoxFuture<'static, ()>;
}

/// An open way; dropped, its connections break.
pub(super) struct ServicePort {
    url: String,
    /// It is where the job's contexts say that it is.
    is_usual: bool,
    _accepting: AbortOnDropHandle<()>,
}

impl ServicePort {
    /// Opens it in a machine.
    pub(super) async fn open(
        access: &ActionsApiAccess,
        machine: &dyn Machine,
        masker: Arc<Masker>,
        checks: Arc<CheckRuns>,
    ) -> Result<Self, SandboxError> {
        let port = machine.listen().await?;
        let is_usual = port.number == ACTIONS_API_PORT;
        let host = if is_usual { ACTIONS_API_HOST } else { "127.0.0.1" };
        let url = format!("http://{host}:{}", port.number);
        let accepting = tokio::spawn(accept_connections(port, Arc::clone(&access.tunnel), masker, checks));
        Ok(Self { url, is_usual, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Where it is, unless it is where it is usually: on a host, jobs share the ports.
    pub(super) fn other_origin(&self) -> Option<&str> {
        (!self.is_usual).then_some(self.url.as_str())
    }

    /// What programs of actions are told (as GitHub's runner tells them).
    pub(super) fn variables(&self, access: &ActionsApiAccess) -> IndexMap<String, String> {
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
    pub(super) fn for_every_step(&self, access: &ActionsApiAccess) -> IndexMap<String, String> {
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

async fn accept_connections(
    mut port: LoopbackPort,
    tunnel: Arc<dyn Tunnel>,
    masker: Arc<Masker>,
    checks: Arc<CheckRuns>,
) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            connection = port.connections.recv() => match connection {
                Some(connection) => {
                    let (tunnel, masker, checks) = (Arc::clone(&tunnel), Arc::clone(&masker), Arc::clone(&checks));
                    serving.spawn(name_check::serve(connection, tunnel, masker, checks));
                }
                None => return,
            },
            Some(_) = serving.join_next() => {}
        }
    }
}
