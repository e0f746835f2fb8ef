//! Finds images on the engine, or pulls them, each once at a time; keeps those that jobs made.

use std::{collections::HashMap, sync::Arc};

use bollard::{
    auth::DockerCredentials,
    errors::Error,
    models::{ContainerConfig, ImageSummary},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
        ListImagesOptionsBuilder, RemoveImageOptions,
    },
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;

use super::{SandboxError, engine::Engine, engine::status};
use crate::sandbox::{Credentials, ImageProgram, STAGE_IMAGE};

/// Images of Docker actions that are kept for the next job that builds the same.
const KEPT: usize = 50;
/// Seconds after which no build still needs the image of an earlier stage: a build takes half an hour at most.
const STAGE_AGE: i64 = 3600;

/// What a machine needs to know of its image.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// `sha256:…` of the registry's manifest; the image's own id where it came from no registry.
    pub(super) digest: Option<String>,
    pub(super) program: ImageProgram,
}

type Found = Result<Arc<Image>, Missing>;

/// Why there is no image.
#[derive(Debug, Clone)]
enum Missing {
    /// Its registry does not give it, and will not the next time.
    Refused(String),
    /// It could not be had now, or here.
    Failed(String),
}

impl Missing {
    fn of(self, reference: &str) -> SandboxError {
        match self {
            Self::Refused(cause) => SandboxError::Refused(format!("image {reference}: {cause}")),
            Self::Failed(cause) => SandboxError::Image { image: reference.to_owned(), cause },
        }
    }
}

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
        let failed = |missing: Missing| missing.of(reference);
        if credentials.is_some() {
            // What one job may pull says nothing of another.
            return find(Arc::clone(engine), reference.to_owned(), credentials.cloned()).await.map_err(failed);
        }
        let flight = {
            let mut flights = self.flights.lock();
            let start = || find(Arc::clone(engine), reference.to_owned(), None).boxed().shared();
            flights.entry(reference.to_owned()).or_insert_with(start).clone()
        };
        let found = flight.clone().await;
        let mut flights = self.flights.lock();
        if flights.get(reference).is_some_and(|current| current.ptr_eq(&flight)) {
            flights.remove(reference);
        }
        found.map_err(failed)
    }
}

async fn find(engine: Arc<Engine>, reference: String, credentials: Option<Credentials>) -> Found {
    let failed = |what, error| Missing::Failed(engine.error(what, error).to_string());
    match inspect(&engine, &reference).await {
        Err(error) if status(&error) == Some(404) => {}
        found => return found.map_err(|error| failed("look for it", error)),
    }
    if reference.starts_with("localhost/") {
        return Err(Missing::Failed("it is local, but not on this engine; build or load it (docker load)".into()));
    }
    pull(&engine, &reference, credentials).await.map_err(|error| match is_refusal(&error) {
        true => Missing::Refused(format!(
            "not on this engine, and its registry does not give it: {error}; check the name, give `credentials:` if it \
             asks for them, or bring it with docker load"
        )),
        false => Missing::Failed(format!(
            "not on this engine, and pulling it failed: {error}; check the name, or bring it with docker load"
        )),
    })?;
    inspect(&engine, &reference).await.map_err(|error| failed("look for it after the pull", error))
}

/// Whether a registry was reached and said no, which it will say again: there is no such image, or it is not for us.
fn is_refusal(error: &Error) -> bool {
    // What the engine takes for a failure of its own, or hears while it answers, has the registry's words only.
    const WORDS: [&str; 6] = [
        "manifest unknown",
        "no matching manifest",
        "unauthorized",
        "no basic auth credentials",
        "access denied",
        "access to the resource is denied",
    ];
    match error {
        Error::DockerResponseServerError { status_code: 400 | 401 | 403 | 404, .. } => true,
        Error::DockerResponseServerError { message: said, .. } | Error::DockerStreamError { error: said } => {
            WORDS.iter().any(|word| said.contains(word))
        }
        _ => false,
    }
}

async fn inspect(engine: &Engine, reference: &str) -> Result<Arc<Image>, Error> {
    let data = engine.api.inspect_image(reference).await?;
    let digest =
        data.repo_digests.unwrap_or_default().into_iter().find_map(|full| Some(full.split_once('@')?.1.to_owned()));
    let config = data.config.unwrap_or_default();
    let entries = config.env.unwrap_or_default().into_iter();
    Ok(Arc::new(Image {
        digest: digest.or(data.id),
        program: ImageProgram {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            directory: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            environment: entries
                .filter_map(|entry| entry.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())))
                .collect(),
        },
    }))
}

async fn pull(engine: &Engine, reference: &str, credentials: Option<Credentials>) -> Result<(), Error> {
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

/// A file or folder of a container as an archive.
pub(super) async fn pack(engine: &Engine, container: &str, path: &str, limit: usize) -> Result<Vec<u8>, SandboxError> {
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let mut pieces = engine.api.download_from_container(container, Some(options));
    let mut archive = Vec::new();
    while let Some(piece) = pieces.next().await {
        archive.extend_from_slice(&piece.map_err(|error| match status(&error) {
            Some(404) => SandboxError::Refused(format!("there is no {path}")),
            _ => engine.error("read files", error),
        })?);
        if archive.len() > limit {
            let mib = limit >> 20;
            return Err(SandboxError::Refused(format!(
                "{path} has more than {mib} MiB: keep what is not needed out of it"
            )));
        }
    }
    Ok(archive)
}

/// Makes an image of a container.
pub(super) async fn commit(
    engine: &Engine,
    container: &str,
    name: &str,
    program: &ImageProgram,
) -> Result<(), SandboxError> {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let options = CommitContainerOptionsBuilder::new().container(container).repo(repository).tag(tag).build();
    // What is left empty, the engine would take from the container, which runs init.
    let nothing = program.entrypoint.is_empty() && program.command.is_empty();
    let or = |text: &str, other: &str| Some(if text.is_empty() { other } else { text }.to_owned());
    let config = ContainerConfig {
        entrypoint: Some(program.entrypoint.clone()),
        cmd: Some(if nothing { vec!["sh".into()] } else { program.command.clone() }),
        working_dir: or(&program.directory, "/"),
        user: or(&program.user, "0:0"),
        env: Some(program.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        ..ContainerConfig::default()
    };
    engine.api.commit_container(options, config).await.map(drop).map_err(|error| engine.error("keep an image", error))
}

/// Removes images that were kept: those between stages of a build that is over, and all others but for the newest. One
/// that is in use stays.
pub(super) async fn sweep(engine: &Engine) {
    let since = jiff::Timestamp::now().as_second() - STAGE_AGE;
    let options = ListImagesOptionsBuilder::new().filters(&engine.ours()).build();
    let images = engine.api.list_images(Some(options)).await.unwrap_or_default();
    let is_stage = |image: &ImageSummary| image.repo_tags.iter().any(|tag| tag.starts_with(STAGE_IMAGE));
    let (stages, mut kept): (Vec<_>, Vec<_>) = images.into_iter().partition(is_stage);
    kept.sort_by_key(|image| std::cmp::Reverse(image.created));
    let old = stages.into_iter().filter(|stage| stage.created < since);
    for image in old.chain(kept.into_iter().skip(KEPT)) {
        let _ = engine.api.remove_image(&image.id, None::<RemoveImageOptions>, None).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_no_is_told_from_one_that_is_not_reached() {
        let answered =
            |status_code, message: &str| Error::DockerResponseServerError { status_code, message: message.to_owned() };
        let streamed = |error: &str| Error::DockerStreamError { error: error.to_owned() };
        for (error, refused) in [
            (answered(404, "pull access denied for no/such, repository does not exist"), true),
            (answered(404, "manifest for ubuntu:no not found: manifest unknown"), true),
            (answered(400, "invalid reference format"), true),
            (answered(500, "Head \"https://r/v2/a/manifests/1\": unauthorized: authentication required"), true),
            (answered(500, "Get \"https://r/v2/\": dial tcp 127.0.0.1:9: connect: connection refused"), false),
            (answered(500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host"), false),
            (answered(500, "toomanyrequests: You have reached your pull rate limit"), false),
            (streamed("no matching manifest for linux/arm64/v8 in the manifest list entries"), true),
            (streamed("unexpected EOF"), false),
            (Error::RequestTimeoutError, false),
        ] {
            assert_eq!(is_refusal(&error), refused, "{error}");
        }
    }
}
