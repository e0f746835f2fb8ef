//! The engine as the floors use it: containers as the product makes them, all under one label, removed by that label.

use std::{
    collections::HashMap,
    process::id,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{
        ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
        NetworkCreateRequest,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
        ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
        TopOptions,
    },
};

use crate::harness::engine::IMAGE;

/// On everything made here; its value is this process, so that two runs leave each other alone.
const LABEL: &str = "longshore.bench";
/// Seconds for one call.
const TIMEOUT: u64 = 120;

/// A connected engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its API.
    pub api: Docker,
    made: Arc<AtomicUsize>,
}

/// How a floor's containers are made.
#[derive(Debug, Clone)]
pub struct Shape {
    host: HostConfig,
}

impl Shape {
    /// The same without any network.
    #[must_use]
    pub fn without_network(&self) -> Self {
        Self { host: HostConfig { network_mode: Some("none".into()), ..self.host.clone() } }
    }
}

/// What one container left to be removed.
#[derive(Debug)]
pub struct Made {
    /// Its id.
    pub id: String,
    volumes: Vec<String>,
}

impl Engine {
    /// Connects where the product does: `DOCKER_HOST`, else the usual socket.
    pub async fn connect() -> Result<Self> {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let api = match host.as_deref() {
            None => Docker::connect_with_unix("/var/run/docker.sock", TIMEOUT, API_DEFAULT_VERSION),
            Some(host) if host.starts_with("unix://") => Docker::connect_with_unix(host, TIMEOUT, API_DEFAULT_VERSION),
            Some(host) => Docker::connect_with_http(host, TIMEOUT, API_DEFAULT_VERSION),
        };
        let api = api?.negotiate_version().await.context("no Docker engine answers: start it, or set DOCKER_HOST")?;
        api.inspect_image(IMAGE).await.with_context(|| format!("the image {IMAGE} is missing: run make setup"))?;
        Ok(Self { api, made: Arc::default() })
    }

    /// The shape of the running container in which a process has these arguments, its network made anew.
    pub async fn copy(&self, arguments: &str) -> Result<Option<Shape>> {
        for container in self.api.list_containers(None).await? {
            let id = container.id.unwrap_or_default();
            // A container may end between the two calls.
            let Ok(top) = self.api.top_processes(&id, None::<TopOptions>).await else { continue };
            let mut words = top.processes.unwrap_or_default().into_iter().flatten();
            if words.any(|word| word.contains(arguments)) {
                let inspected = self.api.inspect_container(&id, None::<InspectContainerOptions>).await?;
                let mut host = inspected.host_config.context("the engine shows no HostConfig")?;
                host.network_mode = self.own_network(host.network_mode).await?;
                return Ok(Some(Shape { host }));
            }
        }
        Ok(None)
    }

    /// Like the product's containers, written by hand: for floors without the product beside them.
    pub async fn plain(&self) -> Result<Shape> {
        let request = NetworkCreateRequest { driver: Some("bridge".into()), ..NetworkCreateRequest::default() };
        let kept = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
        let host = HostConfig {
            mounts: Some(vec![Mount {
                typ: Some(MountType::VOLUME),
                target: Some("/workspace".into()),
                ..Mount::default()
            }]),
            network_mode: Some(self.network(request).await?),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(kept.map(String::from).to_vec()),
            security_opt: Some(vec!["no-new-privileges".into()]),
            memory: Some(4 << 30),
            memory_swap: Some(4 << 30),
            pids_limit: Some(4096),
            ..HostConfig::default()
        };
        Ok(Shape { host })
    }

    /// The same shape with a network of its own.
    pub async fn twin(&self, shape: &Shape) -> Result<Shape> {
        let network_mode = self.own_network(shape.host.network_mode.clone()).await?;
        Ok(Shape { host: HostConfig { network_mode, ..shape.host.clone() } })
    }

    /// Creates a container that will run these arguments.
    pub async fn create(&self, shape: &Shape, arguments: &[&str]) -> Result<Made> {
        let name = self.name();
        let mut host = shape.host.clone();
        let mut volumes = Vec::new();
        for mount in host.mounts.iter_mut().flatten().filter(|mount| is_own(mount)) {
            let volume = format!("{name}-{}", volumes.len());
            mount.source = Some(volume.clone());
            let options = mount.volume_options.take().unwrap_or_default();
            mount.volume_options = Some(MountVolumeOptions { labels: Some(labels()), ..options });
            volumes.push(volume);
        }
        let body = ContainerCreateBody {
            image: Some(IMAGE.into()),
            entrypoint: Some(arguments.iter().map(|&argument| argument.into()).collect()),
            user: Some("0:0".into()),
            labels: Some(labels()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        Ok(Made { id: self.api.create_container(Some(options), body).await?.id, volumes })
    }

    /// Removes a container and what it had.
    pub async fn remove(&self, made: Made) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.api.remove_container(&made.id, Some(options)).await?;
        for volume in made.volumes {
            self.api.remove_volume(&volume, None::<RemoveVolumeOptions>).await?;
        }
        Ok(())
    }

    /// Removes everything that carries this process's label.
    pub async fn clean_up(&self) -> Result<()> {
        let ours = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={}", id())])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
        for container in self.api.list_containers(Some(options)).await? {
            self.remove(Made { id: container.id.unwrap_or_default(), volumes: Vec::new() }).await?;
        }
        let options = ListVolumesOptionsBuilder::new().filters(&ours).build();
        for volume in self.api.list_volumes(Some(options)).await?.volumes.unwrap_or_default() {
            self.api.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await?;
        }
        let options = ListNetworksOptionsBuilder::new().filters(&ours).build();
        for network in self.api.list_networks(Some(options)).await? {
            self.api.remove_network(&network.id.unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// A network of the same kind as that of the mode; modes without a network stay as they are.
    async fn own_network(&self, mode: Option<String>) -> Result<Option<String>> {
        let name = match mode.as_deref() {
            None | Some("none" | "host" | "default" | "bridge") => return Ok(mode),
            Some(name) => name,
        };
        let theirs = self.api.inspect_network(name, None::<InspectNetworkOptions>).await?;
        let request = NetworkCreateRequest {
            driver: theirs.driver,
            internal: theirs.internal,
            enable_ipv6: theirs.enable_ipv6,
            options: theirs.options,
            ..NetworkCreateRequest::default()
        };
        Ok(Some(self.network(request).await?))
    }

    fn name(&self) -> String {
        format!("longshore-bench-{}-{}", id(), self.made.fetch_add(1, Ordering::Relaxed))
    }

    async fn network(&self, request: NetworkCreateRequest) -> Result<String> {
        // A bridge that names its interface cannot have a twin.
        let options = request
            .options
            .map(|options| options.into_iter().filter(|(name, _)| name != "com.docker.network.bridge.name").collect());
        let request = NetworkCreateRequest { name: self.name(), options, labels: Some(labels()), ..request };
        Ok(self.api.create_network(request).await?.id)
    }
}

/// Read-only volumes are shared (the product's first process lives in one); a writable one belongs to one container.
fn is_own(mount: &Mount) -> bool {
    mount.typ == Some(MountType::VOLUME) && mount.read_only != Some(true)
}

fn labels() -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), id().to_string())])
}
