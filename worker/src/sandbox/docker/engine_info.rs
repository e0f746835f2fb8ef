//! Looks at an engine without changing anything on it: whether it answers, what it is, and which images it has.

use super::{DockerConfig, SandboxError, engine::Engine, engine::status};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Version of the engine.
    pub version: String,
    /// Runtime that starts containers.
    pub runtime: String,
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
    let info = engine.api.info().await.map_err(|error| engine.error("ask what it is", error))?;
    let mut missing = Vec::new();
    for image in images {
        match engine.api.inspect_image(image).await {
            Ok(_) => {}
            Err(error) if status(&error) == Some(404) => missing.push(image.clone()),
            Err(error) => return Err(engine.error("look for an image", error)),
        }
    }
    Ok(EngineInfo {
        version: info.server_version.unwrap_or_default(),
        runtime: info.default_runtime.unwrap_or_default(),
        memory: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
        missing,
        warnings: engine.escapes.clone(),
    })
}
