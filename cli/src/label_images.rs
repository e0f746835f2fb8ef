//! Which image a runner label stands for, where a command line does not say.

use worker::{config::Config, sandbox::docker::engine_info};

/// What `deploy/setup.sh` leaves on an engine.
const SET_UP: &str = "longshore/ubuntu:dev";

/// Takes the set-up script's image for the default one, where the engine has the first alone and `named` (label and
/// image) says nothing of ubuntu-latest.
pub(crate) async fn use_present_images(config: &mut Config, named: &[(String, String)]) {
    let Some(default) = config.labels.get("ubuntu-latest").cloned() else { return };
    if !config.sandbox.needs_docker_engine() || named.iter().any(|(label, _)| label == "ubuntu-latest") {
        return;
    }
    // An engine that does not answer is complained of where it is used.
    let Ok(found) = engine_info(None, &[default.clone(), SET_UP.to_owned()]).await else { return };
    if found.missing == [default.clone()] {
        tracing::debug!("{default} is not on this engine: taking {SET_UP}; --image ubuntu-latest=IMAGE takes another");
        config.labels.values_mut().filter(|image| **image == default).for_each(|image| SET_UP.clone_into(image));
    }
}
