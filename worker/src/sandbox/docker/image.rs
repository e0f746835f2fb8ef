//! Finds images on the engine, or pulls them, each once at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bollard::{auth::DockerCredentials, query_parameters::CreateImageOptionsBuilder};
use futures::{
    FutureExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use secrecy::ExposeSecret as _;

use super::{SandboxError, engine::Engine, engine::status};
use crate::sandbox::Credentials;

/// What a machine needs to know of its image.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// `sha256:…` of the registry's manifest; the image's own id where it came from no registry.
    pub(super) digest: Option<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) user: String,
}

type Found = Result<Arc<Image>, String>;

/// Images being looked for.
#[derive(Default)]
pub(super) struct Images {
    flights: Mutex<HashMap<String, Shared<BoxFuture<'static, Found>>>>,
}

impl Images {
    /// The image behind a reference, pulled where it is not there.
    pub(super) async fn find(
        &self,
        engine: &Arc<Engine>,
        reference: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Arc<Image>, SandboxError> {
        let failed = |cause| SandboxError::Image { image: reference.to_owned(), cause };
        if credentials.is_some() {
            // What one job may pull says nothing of another.
            return find(Arc::clone(engine), reference.to_owned(), credentials.cloned()).await.map_err(failed);
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            let start = || find(Arc::clone(engine), reference.to_owned(), None).boxed().shared();
            flights.entry(reference.to_owned()).or_insert_with(start).clone()
        };
        let found = flight.clone().await;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(reference).is_some_and(|current| current.ptr_eq(&flight)) {
            flights.remove(reference);
        }
        found.map_err(failed)
    }
}

async fn find(engine: Arc<Engine>, reference: String, credentials: Option<Credentials>) -> Found {
    match inspect(&engine, &reference).await {
        Err(error) if status(&error) == Some(404) => {}
        found => return found.map_err(|error| engine.error("look for it", error).to_string()),
    }
    if reference.starts_with("localhost/") {
        return Err("it is local, but not on this engine; build or load it (docker load)".into());
    }
    pull(&engine, &reference, credentials).await.map_err(|error| {
        format!("not on this engine, and pulling it failed: {error}; check the name, or bring it with docker load")
    })?;
    inspect(&engine, &reference).await.map_err(|error| engine.error("look for it after the pull", error).to_string())
}

async fn inspect(engine: &Engine, reference: &str) -> Result<Arc<Image>, bollard::errors::Error> {
    let data = engine.api.inspect_image(reference).await?;
    let digest =
        data.repo_digests.unwrap_or_default().into_iter().find_map(|full| Some(full.split_once('@')?.1.to_owned()));
    let config = data.config.unwrap_or_default();
    let entries = config.env.unwrap_or_default().into_iter();
    Ok(Arc::new(Image {
        digest: digest.or(data.id),
        environment: entries
            .filter_map(|entry| entry.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())))
            .collect(),
        user: config.user.unwrap_or_default(),
    }))
}

async fn pull(
    engine: &Engine,
    reference: &str,
    credentials: Option<Credentials>,
) -> Result<(), bollard::errors::Error> {
    tracing::info!(image = reference, "pulling");
    // Without a tag the engine would bring every tag there is.
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    let full = if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::new().from_image(&full).build();
    let credentials = credentials.map(|credentials| DockerCredentials {
        username: Some(credentials.username),
        password: Some(credentials.password.expose_secret().to_owned()),
        ..DockerCredentials::default()
    });
    engine.api.create_image(Some(options), None, credentials).try_for_each(|_| async { Ok(()) }).await
}
