//! What every container of a job may do and use, whatever it runs.

use std::collections::BTreeMap;

use bollard::models::{HostConfig, Mount, MountType, MountVolumeOptions};

use super::ResourceLimits;

/// What root in a container keeps: enough to install packages, change owners and switch users, nothing for the host.
const CAPABILITIES: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"];

/// The engine's settings for a container. `network`: `None` for none.
pub(super) fn hardened(network: Option<&str>, limits: &ResourceLimits) -> HostConfig {
    let number = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    HostConfig {
        network_mode: Some(network.unwrap_or("none").to_owned()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(String::from).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        ipc_mode: Some("private".into()),
        memory: number(limits.memory),
        // The same as memory: no swap on top of it.
        memory_swap: number(limits.memory),
        nano_cpus: number(limits.cpu_millis.saturating_mul(1_000_000)),
        pids_limit: number(limits.processes),
        shm_size: number(limits.shared_memory),
        ..HostConfig::default()
    }
}

pub(super) fn variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

pub(super) fn mount(volume: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}
