//! What every container of a job may do and use, whatever it runs.

use std::collections::BTreeMap;

use bollard::models::{HostConfig, Mount, MountType, MountVolumeOptions};

use crate::sandbox::ResourceLimits;

/// Weight of a container's CPU time; the worker's own processes have 1024, the engine's default.
pub(super) const CPU_WEIGHT: i64 = 512;

/// What root in a container keeps: enough to install packages, change owners and switch users, nothing for the host.
const CAPABILITIES: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"];

/// The engine's settings for a container. `network`: `None` for none.
pub(super) fn hardened(network: Option<&str>, limits: &ResourceLimits) -> HostConfig {
    let number = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    // To the engine 0 is no limit. One that is too small to run with it refuses.
    let limit = |value: u64| number(value.max(1));
    HostConfig {
        network_mode: Some(network.unwrap_or("none").to_owned()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(String::from).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        ipc_mode: Some("private".into()),
        memory: limit(limits.memory),
        // The same as memory: no swap on top of it.
        memory_swap: limit(limits.memory),
        nano_cpus: number(limits.cpu_millis.saturating_mul(1_000_000)),
        cpu_shares: Some(CPU_WEIGHT),
        pids_limit: limit(limits.processes),
        shm_size: number(limits.shared_memory),
        ..HostConfig::default()
    }
}

pub(super) fn variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A volume that begins with what the image has at its place.
pub(super) fn filled_mount(volume: &str, target: &str) -> Mount {
    Mount { volume_options: None, ..mount(volume, target, false) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_30_a_limit_of_nothing_is_not_the_engines_no_limit() {
        let limits = ResourceLimits { memory: 0, processes: 0, ..ResourceLimits::default() };
        let config = hardened(None, &limits);
        assert_eq!((config.memory, config.memory_swap, config.pids_limit), (Some(1), Some(1), Some(1)));
    }
}
