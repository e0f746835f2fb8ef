//! Service containers: beside the job's own in its network, hardened as it is, run by their images' own programs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{
    container::LogOutput,
    models::{
        ContainerCreateBody, ContainerStateStatusEnum, EndpointSettings, HealthConfig, HealthStatusEnum, HostConfig,
        HostConfigLogConfig, NetworkingConfig,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder, StartContainerOptions,
    },
};
use futures::{FutureExt, StreamExt, future::BoxFuture};

use super::{
    container::Containers,
    container_handle::ContainerHandle,
    hardening::{hardened, variables},
    image::Image,
    job_resources::JobResources,
};
use crate::sandbox::{
    ResourceLimits, SandboxError,
    service::{HealthCheck, Service, ServiceSpec, ServiceState},
};

/// Services of one job: what its network has room for.
const SERVICES: usize = 12;
/// Bytes that a service has at least, as far as it may have them.
const LEAST_MEMORY: u64 = 64 << 20;
/// Lines of a service's log that are shown.
const LINES: &str = "20";
/// Bytes of them.
const SHOWN: usize = 16 << 10;
/// Bytes that the engine keeps.
const KEPT: &str = "1m";

pub(super) struct DockerService {
    containers: Arc<Containers>,
    handle: ContainerHandle,
    id: String,
    network: String,
    address: String,
}

/// Makes and starts a service, which of how many.
pub(super) async fn start(
    containers: &Arc<Containers>,
    resources: &Arc<JobResources>,
    (number, of): (usize, usize),
    spec: &ServiceSpec,
) -> Result<Arc<DockerService>, SandboxError> {
    let ServiceSpec { name, machine, .. } = spec;
    let Some(network) = &resources.network else {
        let remedy = "run the worker as root with iptables";
        return Err(SandboxError::Refused(format!("service {name}: jobs have no network on this worker; {remedy}")));
    };
    if number >= SERVICES {
        return Err(SandboxError::Refused(format!("service {name}: a job may have {SERVICES} services")));
    }
    let image = containers.images.find(&machine.image, machine.credentials.as_ref()).await?;
    let mut spec = spec.clone();
    if resources.cgroup_parent().is_none() {
        spec.machine.limits = equal_part(&machine.limits, of);
    }
    let api = &containers.engine.api;
    let failed = |what: &str, error| containers.engine.error(&format!("service {name}: {what}"), error);
    let handle = ContainerHandle::new(resources);
    let options = CreateContainerOptionsBuilder::new().name(&handle.name).build();
    let volumes = containers.make_volumes(resources, &handle.name, &machine.volumes).await?;
    let mut body = body(containers, resources, network, &spec, &image);
    if let Some(config) = &mut body.host_config {
        config.mounts = Some(volumes);
        containers.mount_image_volumes(resources, &handle.name, &image, config).await?;
    }
    api.create_container(Some(options), body).await.map_err(|error| failed("create", error))?;
    let started = api.start_container(&handle.name, None::<StartContainerOptions>).await;
    started.map_err(|error| failed("start", error))?;
    let data = api.inspect_container(&handle.name, None::<InspectContainerOptions>).await;
    let data = data.map_err(|error| failed("inspect", error))?;
    let endpoints = data.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address = endpoints.into_values().find_map(|endpoint| endpoint.ip_address).unwrap_or_default();
    Ok(Arc::new(DockerService {
        containers: Arc::clone(containers),
        handle,
        id: data.id.unwrap_or_default(),
        network: network.clone(),
        address,
    }))
}

/// Where the containers of a job do not count together, its services have its memory and processes once, in equal parts.
fn equal_part(limits: &ResourceLimits, of: usize) -> ResourceLimits {
    let of = u64::try_from(of).unwrap_or(1).max(1);
    ResourceLimits {
        memory: (limits.memory / of).max(LEAST_MEMORY.min(limits.memory)),
        processes: (limits.processes / of).max(1),
        ..limits.clone()
    }
}

fn body(
    containers: &Containers,
    resources: &JobResources,
    network: &str,
    spec: &ServiceSpec,
    image: &Image,
) -> ContainerCreateBody {
    let machine = &spec.machine;
    let given = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let aliases = std::iter::once(&spec.name).chain(&spec.aliases).cloned().collect();
    let endpoint = EndpointSettings { aliases: Some(aliases), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(image.id.clone()),
        entrypoint: given(&spec.entrypoint),
        cmd: given(&spec.command),
        user: text(&machine.user),
        env: Some(variables(&machine.environment)),
        hostname: text(&machine.hostname),
        labels: Some(containers.engine.labels(Some(&resources.nonce))),
        healthcheck: spec.health.as_ref().map(health),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        }),
        host_config: Some(HostConfig {
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), KEPT.to_owned()),
                    ("max-file".to_owned(), "1".to_owned()),
                ])),
            }),
            cgroup_parent: resources.cgroup_parent(),
            storage_opt: resources.storage_options(),
            runtime: text(&machine.runtime),
            ..hardened(Some(network), &machine.limits)
        }),
        ..ContainerCreateBody::default()
    }
}

fn health(check: &HealthCheck) -> HealthConfig {
    let nanoseconds = |time: Option<Duration>| time.map(|time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        retries: check.retries.map(i64::from),
        ..HealthConfig::default()
    }
}

impl Service for DockerService {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> &str {
        &self.network
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn state(&self) -> BoxFuture<'_, Result<ServiceState, SandboxError>> {
        async move {
            let engine = &self.containers.engine;
            let data = engine.api.inspect_container(&self.handle.name, None::<InspectContainerOptions>).await;
            let state = data.map_err(|error| engine.error("look at a service", error))?.state.unwrap_or_default();
            if state.status != Some(ContainerStateStatusEnum::RUNNING) {
                let code = state.exit_code.unwrap_or(-1);
                return Ok(ServiceState::Ended { code, out_of_memory: state.oom_killed.unwrap_or(false) });
            }
            Ok(match state.health.and_then(|health| health.status) {
                Some(HealthStatusEnum::STARTING) => ServiceState::Starting,
                Some(HealthStatusEnum::UNHEALTHY) => ServiceState::Unhealthy,
                _ => ServiceState::Ready,
            })
        }
        .boxed()
    }

    fn last_lines(&self) -> BoxFuture<'_, String> {
        async move {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LINES).build();
            let mut output = self.containers.engine.api.logs(&self.handle.name, Some(options));
            let mut text = Vec::new();
            while let Some(Ok(piece)) = output.next().await {
                match piece {
                    LogOutput::StdOut { message } | LogOutput::StdErr { message } | LogOutput::Console { message } => {
                        text.extend_from_slice(&message);
                    }
                    LogOutput::StdIn { .. } => {}
                }
                if text.len() > SHOWN {
                    break;
                }
            }
            whole_lines(&mut text, SHOWN);
            String::from_utf8_lossy(&text).trim_end().to_owned()
        }
        .boxed()
    }
}

/// Cuts a text that is too long behind a line: half of a secret would be masked by nobody.
fn whole_lines(text: &mut Vec<u8>, most: usize) {
    if text.len() > most {
        let lines = text.get(..most).and_then(|text| memchr::memrchr(b'\n', text)).map_or(0, |end| end + 1);
        text.truncate(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_45_a_line_of_a_service_is_shown_whole_or_not_at_all() {
        for (text, shown) in
            [("one\ntwo", "one\ntwo"), ("one\ntwo\nthree secret", "one\ntwo\n"), ("a line that is too long", "")]
        {
            let mut cut = text.as_bytes().to_vec();
            whole_lines(&mut cut, 10);
            assert_eq!(cut, shown.as_bytes(), "{text}");
        }
    }

    #[test]
    fn attack_36_a_dozen_services_have_the_memory_of_a_job_once() {
        let limits = ResourceLimits { memory: 4 << 30, processes: 4096, ..ResourceLimits::default() };
        for (of, memory, processes) in [(0, 4 << 30, 4096), (1, 4 << 30, 4096), (4, 1 << 30, 1024), (100, 64 << 20, 40)]
        {
            let part = equal_part(&limits, of);
            assert_eq!((part.memory, part.processes), (memory, processes), "{of}");
        }
        let small = ResourceLimits { memory: 32 << 20, processes: 2, ..limits };
        let part = equal_part(&small, 8);
        assert_eq!((part.memory, part.processes), (32 << 20, 1));
    }
}
