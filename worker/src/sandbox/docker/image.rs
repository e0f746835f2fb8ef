//! Finds images that a job may use on the engine, or pulls them, each once at a time; keeps those that jobs made.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bollard::{
    auth::DockerCredentials,
    errors::Error,
    models::{ContainerConfig, ImageSummary},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
        InspectContainerOptions, ListImagesOptionsBuilder, RemoveImageOptions,
    },
};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, WeakShared},
    stream::BoxStream,
};
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, interval};

use super::{
    DockerConfig, SandboxError,
    engine::{Engine, status},
    image_access::{ImageAccess, normalised, with_tag},
    image_registry::{self, NotAsked, Registries},
    pulled_images::{PulledImages, Quota},
};
use crate::sandbox::{Credentials, ImageProgram, STAGE_IMAGE};

/// Images of Docker actions that are kept for the next job that builds the same.
const KEPT: usize = 50;
/// Seconds after which no build still needs the image of an earlier stage: a build takes half an hour at most.
const STAGE_AGE: i64 = 3600;

/// Longest pull, and longest time in which nothing comes of it. The engine brings three layers at a time, whoever asks.
const PULL: Duration = Duration::from_secs(3600);
const STALL: Duration = Duration::from_secs(120);
/// How often it is looked at the disk meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// What a machine needs to know of its image.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// The engine's own name of it: a tag may move while a container is made.
    pub(super) id: String,
    /// `sha256:…` of the registry's manifest; the image's own id where it came from no registry.
    pub(super) digest: Option<String>,
    pub(super) program: ImageProgram,
    /// Paths that it wants to have volumes of their own (`VOLUME`).
    pub(super) volumes: Vec<String>,
    /// Bytes of all its layers.
    bytes: u64,
    tags: Vec<String>,
    /// `sha256:…` of each manifest that it was pulled as.
    digests: Vec<String>,
    labels: HashMap<String, String>,
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

/// Images being looked for, and who may have what is there.
pub(super) struct Images {
    /// Each ends with the last who waits for it: the engine goes on only as long as somebody listens.
    flights: Mutex<HashMap<String, WeakShared<BoxFuture<'static, Found>>>>,
    store: Arc<ImageStore>,
}

struct ImageStore {
    engine: Arc<Engine>,
    access: ImageAccess,
    registries: Registries,
    pulled: PulledImages,
    quota: Quota,
}

impl Images {
    pub(super) fn new(engine: Arc<Engine>, config: &DockerConfig) -> Self {
        let store = ImageStore {
            engine,
            access: ImageAccess::new(config.local_images.as_deref()),
            registries: Registries::new(config.private_registries.clone()),
            pulled: PulledImages::open(config.pulled_images.clone()),
            quota: Quota { bytes: config.image_bytes, min_free: config.min_free },
        };
        Self { flights: Mutex::default(), store: Arc::new(store) }
    }

    /// The image behind a reference, pulled where it is not there. One that is there goes to whom its registry gives it,
    /// unless the operator gives it to all.
    pub(super) async fn find(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Arc<Image>, SandboxError> {
        let failed = |missing: Missing| missing.of(reference);
        if !is_reference(reference) {
            return Err(SandboxError::Refused(format!("image {reference}: this is no reference of an image")));
        }
        if credentials.is_some() {
            // What one job may pull says nothing of another.
            return find(Arc::clone(&self.store), reference.to_owned(), credentials.cloned()).await.map_err(failed);
        }
        let flight = {
            let mut flights = self.flights.lock();
            flights.retain(|_, flight| flight.upgrade().is_some());
            match flights.get(reference).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = find(Arc::clone(&self.store), reference.to_owned(), None).boxed().shared();
                    flights.extend(flight.downgrade().map(|flight| (reference.to_owned(), flight)));
                    flight
                }
            }
        };
        flight.await.map_err(failed)
    }

    /// Removes images that were kept: those between stages of a build that is over, of those that were built all but the
    /// newest, and of those that were pulled what is too much. One that is in use stays.
    pub(super) async fn sweep(&self) {
        let ImageStore { engine, pulled, quota, .. } = &*self.store;
        trim_built(engine, quota.bytes).await;
        pulled.trim(engine, *quota).await;
    }
}

async fn find(store: Arc<ImageStore>, reference: String, credentials: Option<Credentials>) -> Found {
    let ImageStore { engine, access, registries, pulled, quota } = &*store;
    let failed = |what, error| Missing::Failed(engine.error(what, error).to_string());
    let full = with_tag(&reference);
    let there = match inspect(engine, &reference).await {
        Err(error) if status(&error) == Some(404) => None,
        found => Some(found.map_err(|error| failed("look for it", error))?),
    };
    match there {
        Some(image) => {
            let is_ours = is_built_here(&reference) && engine.is_ours(&image.labels);
            if is_ours || access.is_local(&reference) || access.is_proven(&image.id, credentials.as_ref()) {
                pulled.used(&full);
                return Ok(image);
            }
            if is_given(&store, &full, &image, credentials.as_ref()).await? {
                access.prove(&image.id, credentials.as_ref());
                pulled.used(&full);
                return Ok(image);
            }
        }
        None if reference.starts_with("localhost/") => {
            return Err(Missing::Failed("it is local, but not on this engine; build or load it (docker load)".into()));
        }
        None => {}
    }
    if !access.is_local(&reference) {
        may_ask(registries, &full).await?;
    }
    if quota.is_low(engine) {
        pulled.trim(engine, *quota).await;
    }
    pull(engine, &full, credentials.clone(), *quota).await.map_err(|cut| {
        let cause = match &cut {
            Cut::Engine(error) => image_registry::cause(&full, error),
            Cut::Slow => "it took too long",
            Cut::Full => "the engine's disk is nearly full",
        };
        match cut {
            Cut::Engine(error) if is_refusal(&error) => Missing::Refused(format!(
                "not on this engine, and its registry does not give it: {cause}; check the name, give `credentials:` if \
                 it asks for them, or bring it with docker load"
            )),
            _ => Missing::Failed(format!(
                "not on this engine, and pulling it failed: {cause}; check the name, or bring it with docker load"
            )),
        }
    })?;
    pulled.pulled(&full);
    let image = inspect(engine, &reference).await.map_err(|error| failed("look for it after the pull", error))?;
    engine.image_bytes.fetch_add(image.bytes, Ordering::Relaxed);
    access.prove(&image.id, credentials.as_ref());
    Ok(image)
}

async fn may_ask(registries: &Registries, reference: &str) -> Result<(), Missing> {
    const CAUSE: &str = "its registry has no public address: an operator may name it in `private_registries`";
    registries.check(reference).await.map_err(|why| match why {
        NotAsked::Private => Missing::Refused(CAUSE.into()),
        NotAsked::Unresolved => Missing::Failed(CAUSE.into()),
    })
}

/// Whether an image's registry gives this very image to the job; `false`: it gives another under that name.
async fn is_given(
    store: &ImageStore,
    reference: &str,
    image: &Image,
    credentials: Option<&Credentials>,
) -> Result<bool, Missing> {
    let refused = |cause: &str| {
        Missing::Refused(format!(
            "it is on this engine, but {cause}: give `credentials:` if its registry asks for them, or let the operator \
             name it in `local_images`"
        ))
    };
    if reference.starts_with("localhost/") {
        return Err(refused("local, and no job's"));
    }
    // No registry knows it by an id; one would be asked for another image.
    let name = normalised(reference);
    if !reference.contains('@') && !image.tags.iter().any(|tag| normalised(tag) == name) {
        return Err(refused("named by its id, which is no proof that this job may have it"));
    }
    may_ask(&store.registries, reference).await?;
    match store.engine.api.inspect_registry_image(reference, credentials.map(docker_credentials)).await {
        Ok(found) => Ok(found.descriptor.digest.is_some_and(|digest| image.digests.contains(&digest))),
        Err(error) if is_refusal(&error) => {
            let cause = image_registry::cause(reference, &error);
            Err(refused(&format!("its registry does not give it to this job ({cause})")))
        }
        Err(error) => {
            let cause = image_registry::cause(reference, &error);
            Err(Missing::Failed(format!("its registry was asked whether this job may have it: {cause}")))
        }
    }
}

/// Whether a reference has the characters of one: the engine's API has it in a path.
fn is_reference(text: &str) -> bool {
    let allowed = |char: char| char.is_ascii_alphanumeric() || "._-/:@+".contains(char);
    !text.is_empty()
        && text.len() <= 512
        && text.chars().all(allowed)
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Images of Docker actions and of their stages, which no job can name that could not build them.
fn is_built_here(reference: &str) -> bool {
    reference.starts_with("localhost/longshore-")
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
    let names = data.repo_digests.unwrap_or_default();
    let digests: Vec<_> = names.iter().filter_map(|name| Some(name.split_once('@')?.1.to_owned())).collect();
    let config = data.config.unwrap_or_default();
    let id = data.id.unwrap_or_else(|| reference.to_owned());
    let entries = config.env.unwrap_or_default().into_iter();
    Ok(Arc::new(Image {
        digest: digests.first().cloned().or_else(|| Some(id.clone())),
        id,
        tags: data.repo_tags.unwrap_or_default(),
        digests,
        labels: config.labels.unwrap_or_default(),
        bytes: data.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        volumes: config.volumes.unwrap_or_default(),
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

/// Why a pull did not come to its end.
enum Cut {
    Engine(Error),
    /// In sum, or since it last went on.
    Slow,
    /// Images shall not take what is in reserve for the jobs.
    Full,
}

/// Dropped, it is given up by the engine too.
async fn pull(engine: &Engine, reference: &str, credentials: Option<Credentials>, quota: Quota) -> Result<(), Cut> {
    tracing::info!(image = reference, "pulling");
    let options = CreateImageOptionsBuilder::new().from_image(reference).build();
    let credentials = credentials.as_ref().map(docker_credentials);
    let mut parts = engine.api.create_image(Some(options), None, credentials);
    let end = Instant::now() + PULL;
    let mut went_on = Instant::now();
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            part = parts.next() => match part {
                Some(part) => drop(part.map_err(Cut::Engine)?),
                None => return Ok(()),
            },
            _ = look.tick() => {
                if quota.is_low(engine) {
                    return Err(Cut::Full);
                }
                if Instant::now() > end.min(went_on + STALL) {
                    return Err(Cut::Slow);
                }
                continue;
            }
        }
        went_on = Instant::now();
    }
}

fn docker_credentials(credentials: &Credentials) -> DockerCredentials {
    DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.expose_secret().to_owned()),
        ..DockerCredentials::default()
    }
}

/// A file or folder of a container as an archive, as it comes.
pub(super) fn pack(
    engine: Arc<Engine>,
    container: &str,
    path: String,
) -> BoxStream<'static, Result<Bytes, SandboxError>> {
    let options = DownloadFromContainerOptionsBuilder::new().path(&path).build();
    let pieces = engine.api.download_from_container(container, Some(options));
    pieces
        .map(move |piece| {
            piece.map_err(|error| match status(&error) {
                Some(404) => SandboxError::Refused(format!("there is no {path}")),
                _ => engine.error("read files", error),
            })
        })
        .boxed()
}

/// Makes an image of a container. Gives the bytes that it has beside what the container began with.
pub(super) async fn commit(
    engine: &Engine,
    container: &str,
    name: &str,
    program: &ImageProgram,
) -> Result<u64, SandboxError> {
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
    let made = engine.api.commit_container(options, config).await;
    made.map_err(|error| engine.error("keep an image", error))?;
    let container = engine.api.inspect_container(container, None::<InspectContainerOptions>).await;
    let base = container.ok().and_then(|container| container.image).unwrap_or_default();
    let bytes = async |name: &str| inspect(engine, name).await.map_or(0, |image| image.bytes);
    let bytes = bytes(name).await.saturating_sub(bytes(&base).await);
    engine.image_bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(bytes)
}

/// Removes images of stages whose build is over, and of those that were built all but the newest. `bytes`: of all of
/// them; 0: any number.
async fn trim_built(engine: &Engine, bytes: u64) {
    let since = jiff::Timestamp::now().as_second() - STAGE_AGE;
    let options = ListImagesOptionsBuilder::new().filters(&engine.ours()).build();
    let images = engine.api.list_images(Some(options)).await.unwrap_or_default();
    let is_stage = |image: &ImageSummary| image.repo_tags.iter().any(|tag| tag.starts_with(STAGE_IMAGE));
    let (stages, mut kept): (Vec<_>, Vec<_>) = images.into_iter().partition(is_stage);
    kept.sort_by_key(|image| std::cmp::Reverse(image.created));
    let old = stages.into_iter().filter(|stage| stage.created < since);
    let mut total = 0_u64;
    let too_much = kept.into_iter().enumerate().filter_map(|(number, image)| {
        total = total.saturating_add(u64::try_from(image.size).unwrap_or(0));
        (number >= KEPT || bytes > 0 && total > bytes).then_some(image)
    });
    for image in old.chain(too_much) {
        let _ = engine.api.remove_image(&image.id, None::<RemoveImageOptions>, None).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reference_goes_into_a_path_of_the_engine() {
        for good in ["a", "r.example:5000/a/b:1", "a@sha256:0f", "sha256:0f", "A_b-c.d/e"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "a b", "a/../../containers/x", "/a", "a//b", "a?x=1", "a#b", "a%2fb", "./a", "a/", "ä"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

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
