//! Looks at an engine without changing anything on it: whether it answers, what it is, and which images it has.

use super::{
    DockerConfig, ResourceLimits, SandboxError,
    engine::{Engine, status},
    job_cgroup::JobCgroups,
    volume_images::VolumeImages,
};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Version of the engine.
    pub version: String,
    /// Runtime that starts containers.
    pub runtime: String,
    /// All runtimes that it knows.
    pub runtimes: Vec<String>,
    /// Bytes of memory that containers may share.
    pub memory: u64,
    /// Those of the asked images that are not there.
    pub missing: Vec<String>,
    /// What a worker says of parts of this age.
    pub warnings: Vec<String>,
}

/// Asks the engine that [`super::DockerSandbox::connect`] would use.
pub async fn engine_info(socket: Option<String>, images: &[String]) -> Result<EngineInfo, SandboxError> {
    let engine = Engine::connect(&DockerConfig { socket, ..DockerConfig::default() }).await?;
    let mut missing = Vec::new();
    for image in images {
        match engine.api.inspect_image(image).await {
            Ok(_) => {}
            Err(error) if status(&error) == Some(404) => missing.push(image.clone()),
            Err(error) => return Err(engine.error("look for an image", error)),
        }
    }
    Ok(EngineInfo {
        version: engine.info.server_version.clone().unwrap_or_default(),
        runtime: engine.info.default_runtime.clone().unwrap_or_default(),
        runtimes: engine.info.runtimes.iter().flatten().map(|(name, _)| name.clone()).collect(),
        memory: engine.info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
        missing,
        warnings: engine.escapes.clone(),
    })
}

/// How far an engine lets a worker bound what its jobs do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineBounds {
    /// Root of a container is an ordinary user of the engine's machine: it maps users, or is no root itself.
    pub maps_users: bool,
    /// The containers of a job have its limits together; otherwise each has them.
    pub shares_limits: bool,
    /// What a container writes beside its volumes has a bound of its own.
    pub bounds_layers: bool,
    /// Why volumes of jobs cannot be file systems of a fixed size here; `None`: they can.
    pub no_fixed_volumes: Option<String>,
}

/// Tries what a worker on this machine would do, and leaves nothing of it.
pub async fn engine_bounds(socket: Option<String>) -> Result<EngineBounds, SandboxError> {
    let engine = Engine::connect(&DockerConfig { socket, ..DockerConfig::default() }).await?;
    Ok(EngineBounds {
        maps_users: engine.maps_users(),
        shares_limits: JobCgroups::open(&engine.info, engine.root.is_some(), ResourceLimits::default()).is_some(),
        bounds_layers: engine.layers_have_quotas(),
        no_fixed_volumes: no_fixed_volumes(&engine).await,
    })
}

async fn no_fixed_volumes(engine: &Engine) -> Option<String> {
    if engine.root.is_none() {
        return Some("the engine is on another machine".into());
    }
    let tried = tokio::task::spawn_blocking(|| {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        VolumeImages::open(folder.path(), 0, (0, 0)).map(drop)
    });
    tried.await.unwrap_or_else(|error| Err(error.to_string())).err()
}
