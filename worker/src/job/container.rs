//! `container:` of a job and each of its `services:`: which image, and what of its options this pool allows.
//!
//! Source of the rules: GitHub docs, "jobs.<job_id>.container" and "jobs.<job_id>.services". Options go through a short list, since Docker's would
//! give a job the host; volumes have names, since paths of the host are not a job's.

use std::{collections::BTreeMap, time::Duration};

use workflow::expression::{Object, Value};

use crate::sandbox::{
    Credentials, MachineSpec, ResourceLimits, VolumeMount,
    service::{HealthCheck, ServiceSpec},
};

/// Lays a job's `container:`, evaluated, over what its machine would be. Returns whether it names a container.
pub(super) fn apply(container: &Value, spec: &mut MachineSpec) -> Result<bool, String> {
    match container {
        Value::Null => Ok(false),
        Value::String(image) if image.trim().is_empty() => Ok(false),
        Value::String(image) => {
            spec.image = reference(image)?;
            Ok(true)
        }
        Value::Object(map) => {
            if !has_image(map) {
                return Ok(false);
            }
            for (key, value) in map.iter() {
                match (key, value) {
                    // Steps run inside the container: they reach its ports as they are.
                    ("ports", Value::Null | Value::Array(_)) => {}
                    (key, value) => shared(key, value, spec).map_err(|problem| format!("container.{key}{problem}"))?,
                }
            }
            options(&text(map, "options"), spec, None).map_err(|problem| format!("container {problem}"))?;
            Ok(true)
        }
        other => Err(format!("container must be an image or a mapping, not {}", other.kind_name())),
    }
}

/// A port of a service: the one by which the job's localhost has it, if one is named, and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortMapping {
    pub(super) near: Option<u16>,
    pub(super) far: u16,
}

/// Reads one service, evaluated. `None`: it has no image, and is left out. `machine`: what it starts from.
pub(super) fn service(
    name: &str,
    value: &Value,
    machine: MachineSpec,
) -> Result<Option<(ServiceSpec, Vec<PortMapping>)>, String> {
    let mut spec = ServiceSpec { name: name.to_owned(), machine, ..ServiceSpec::default() };
    let mut ports = Vec::new();
    match value {
        Value::Null => return Ok(None),
        Value::String(image) if image.trim().is_empty() => return Ok(None),
        Value::String(image) => spec.machine.image = reference(image)?,
        Value::Object(map) => {
            if !has_image(map) {
                return Ok(None);
            }
            for (key, value) in map.iter() {
                match (key, value) {
                    ("ports", Value::Array(list)) => {
                        for entry in list.iter() {
                            ports.push(port(&entry.as_text())?);
                        }
                    }
                    ("ports", Value::Null) => {}
                    (key @ ("entrypoint" | "command"), value) => {
                        let words = shlex::split(&value.as_text()).ok_or_else(|| format!("{key} has an open quote"))?;
                        if key == "command" { spec.command = words } else { spec.entrypoint = words }
                    }
                    (key, value) => {
                        shared(key, value, &mut spec.machine).map_err(|problem| format!("{key}{problem}"))?;
                    }
                }
            }
            let mut more = ServiceSpec::default();
            options(&text(map, "options"), &mut spec.machine, Some(&mut more))?;
            spec.health = more.health;
            spec.aliases = more.aliases;
            if spec.entrypoint.is_empty() {
                spec.entrypoint = more.entrypoint;
            }
        }
        other => return Err(format!("it must be an image or a mapping, not {}", other.kind_name())),
    }
    Ok(Some((spec, ports)))
}

fn text(map: &Object, key: &str) -> String {
    map.get(key).map(|value| value.as_text().into_owned()).unwrap_or_default()
}

fn has_image(map: &Object) -> bool {
    !text(map, "image").trim().is_empty()
}

/// What job containers and services are told alike. The problem goes behind the key.
fn shared(key: &str, value: &Value, spec: &mut MachineSpec) -> Result<(), String> {
    let said = |problem| format!(": {problem}");
    match (key, value) {
        ("image", value) => spec.image = reference(&value.as_text()).map_err(said)?,
        ("options", _) | ("env" | "volumes" | "credentials", Value::Null) => {}
        ("env", Value::Object(env)) => {
            spec.environment.extend(env.iter().map(|(name, value)| (name.to_owned(), value.as_text().into_owned())))
        }
        ("volumes", Value::Array(volumes)) => {
            for entry in volumes.iter() {
                add_volume(&entry.as_text(), spec).map_err(said)?;
            }
        }
        ("credentials", Value::Object(map)) => {
            let (username, password) = (text(map, "username"), text(map, "password"));
            if username.is_empty() || password.is_empty() {
                return Err(" needs a username and a password; is the secret there?".into());
            }
            spec.credentials = Some(Credentials { username, password: password.into() });
        }
        _ => return Err(" is not known or has the wrong form".into()),
    }
    Ok(())
}

fn port(text: &str) -> Result<PortMapping, String> {
    let wrong = || format!("port `{text}`: write PORT or PORT:PORT");
    let (ports, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
    if protocol != "tcp" {
        return Err(format!("port `{text}`: only tcp is led to localhost; reach the service by its name"));
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    match *ports.split(':').collect::<Vec<_>>().as_slice() {
        [far] => Ok(PortMapping { near: None, far: number(far)? }),
        // The address is the job's own localhost, whichever is named.
        [near, far] | [_, near, far] => Ok(PortMapping { near: Some(number(near)?), far: number(far)? }),
        _ => Err(wrong()),
    }
}

fn reference(image: &str) -> Result<String, String> {
    let image = image.trim();
    let image = image.strip_prefix("docker://").unwrap_or(image);
    if image.starts_with('-') || image.contains(char::is_whitespace) {
        return Err(format!("image `{image}` is no image reference"));
    }
    Ok(image.to_owned())
}

/// Folders that no volume may cover, hold or stand in.
const KEPT: [&[&str]; 6] = [&["longshore"], &["workspace"], &["github"], &["proc"], &["sys"], &["dev"]];

/// Modes that change nothing here: how the engine labels and caches folders of the host, which jobs do not have.
const MODES: [&str; 6] = ["rw", "z", "Z", "consistent", "cached", "delegated"];

fn add_volume(text: &str, spec: &mut MachineSpec) -> Result<(), String> {
    let parts: Vec<_> = text.split(':').collect();
    let (source, target, mode) = match *parts.as_slice() {
        [target] if target.starts_with('/') => {
            let target = volume_target(text, target)?;
            spec.volumes.push(VolumeMount { target, ..VolumeMount::default() });
            return Ok(());
        }
        [source, target] => (source, target, "rw"),
        [source, target, mode] => (source, target, mode),
        _ => return Err(format!("volume `{text}`: write NAME:/path, or /path alone")),
    };
    let named = source.starts_with(|c: char| c.is_ascii_alphanumeric())
        && source.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !named {
        return Err(format!("volume `{text}`: paths of the host are not given to jobs; write NAME:/path"));
    }
    let mut read_only = false;
    for word in mode.split(',') {
        match word {
            "ro" => read_only = true,
            word if MODES.contains(&word) => {}
            word => return Err(format!("volume `{text}`: its mode `{word}` is not known; write ro or rw")),
        }
    }
    spec.volumes.push(VolumeMount { name: source.to_owned(), target: volume_target(text, target)?, read_only });
    Ok(())
}

/// A path that a volume may have in a container.
fn volume_target(text: &str, target: &str) -> Result<String, String> {
    if !target.starts_with('/') || target.split('/').any(|part| part == "..") || target.trim_matches('/').is_empty() {
        return Err(format!("volume `{text}`: its target must be an absolute path below /"));
    }
    let parts: Vec<_> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let kept = |kept: &[&str]| parts.starts_with(kept) || kept.starts_with(&parts);
    if KEPT.iter().any(|path| kept(path)) {
        return Err(format!("volume `{text}`: its target holds what the job is run by; choose another"));
    }
    Ok(target.to_owned())
}

/// Reads options. `service`: takes what only a service may say.
fn options(text: &str, spec: &mut MachineSpec, mut service: Option<&mut ServiceSpec>) -> Result<(), String> {
    let words = shlex::split(text).ok_or("options have a quote that does not end")?;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let mut value =
            || attached.clone().or_else(|| words.next()).ok_or_else(|| format!("option {name} needs a value"));
        match name.as_str() {
            "--hostname" | "-h" => spec.hostname = value()?,
            "--user" | "-u" => spec.user = value()?,
            "--env" | "-e" => {
                let value = value()?;
                let (name, value) = value.split_once('=').ok_or("option --env needs NAME=VALUE")?;
                spec.environment.insert(name.to_owned(), value.to_owned());
            }
            "--volume" | "-v" => add_volume(&value()?, spec)?,
            "--memory" | "-m" => spec.limits.memory = size(&value()?)?.min(spec.limits.memory),
            "--shm-size" => spec.limits.shared_memory = size(&value()?)?.min(spec.limits.memory),
            "--pids-limit" => {
                // 0 and what is below it would be no limit at all.
                let asked = value()?.parse::<u64>().ok().filter(|asked| *asked > 0);
                let asked = asked.ok_or("option --pids-limit needs a number above 0")?;
                spec.limits.processes = spec.limits.processes.min(asked);
            }
            "--cpus" => {
                let cpus: f64 = value()?.parse().map_err(|_| "option --cpus needs a number above 0")?;
                if !(0.001..=4096.0).contains(&cpus) {
                    return Err("option --cpus needs a number above 0".into());
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was tested")]
                let millis = (cpus * 1000.0) as u64;
                spec.limits.cpu_millis =
                    if spec.limits.cpu_millis == 0 { millis } else { millis.min(spec.limits.cpu_millis) };
            }
            // Without them the machine is as the option wants it, or as near as makes no difference.
            "--init" | "--rm" => {}
            "--label" | "-l" | "--name" => {
                value()?;
            }
            other => {
                let known = match service.as_deref_mut() {
                    Some(service) => service_option(other, value, service)?,
                    None => false,
                };
                if !known {
                    let more = if service.is_some() { ", --entrypoint, --health-*, --network-alias" } else { "" };
                    return Err(format!(
                        "option {other} is not allowed here; allowed: --cpus, --env, --hostname, --memory, \
                         --pids-limit, --shm-size, --user, --volume with a name{more}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether it is an option of services alone, which is then read.
fn service_option(
    name: &str,
    mut value: impl FnMut() -> Result<String, String>,
    service: &mut ServiceSpec,
) -> Result<bool, String> {
    let duration = |text: String| {
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        parsed.ok_or_else(|| format!("option {name} needs a time such as 10s, not `{text}`"))
    };
    match name {
        "--entrypoint" => {
            service.entrypoint = vec![value()?];
            return Ok(true);
        }
        "--network-alias" => {
            service.aliases.push(value()?);
            return Ok(true);
        }
        _ => {}
    }
    let mut health = service.health.clone().unwrap_or_default();
    match name {
        "--health-cmd" => health.test = vec!["CMD-SHELL".into(), value()?],
        "--health-interval" => health.interval = Some(duration(value()?)?),
        "--health-timeout" => health.timeout = Some(duration(value()?)?),
        "--health-start-period" => health.start_period = Some(duration(value()?)?),
        // How often it is checked in that period; engines before 25 do not know it.
        "--health-start-interval" => drop(duration(value()?)?),
        "--health-retries" => {
            health.retries = Some(value()?.parse().map_err(|_| format!("option {name} needs a number"))?);
        }
        "--no-healthcheck" => health = HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() },
        _ => return Ok(false),
    }
    service.health = Some(health);
    Ok(true)
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => {
            return Err(format!("`{text}` is no size: write a number with b, k, m or g"));
        }
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is no size: write a number with b, k, m or g"))
}

/// What a job's machine is without a `container:`.
pub(super) fn plain(image: &str, attempt: String, limits: ResourceLimits) -> MachineSpec {
    MachineSpec { image: image.to_owned(), attempt, environment: BTreeMap::new(), limits, ..MachineSpec::default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn applied(container: &serde_json::Value) -> Result<MachineSpec, String> {
        let mut spec = plain("base", "a".into(), ResourceLimits::default());
        apply(&Value::from_json(container), &mut spec).map(|_| spec)
    }

    #[test]
    fn a_container_sets_image_environment_options_and_named_volumes() {
        let spec = applied(&serde_json::json!({
            "image": "img:1", "env": {"A": 1}, "volumes": ["data:/data"],
            "options": "--hostname box --user 100:101 --cpus=1.5 -m 512m --env 'B=two words'",
        }))
        .unwrap();
        assert_eq!((spec.image.as_str(), spec.hostname.as_str(), spec.user.as_str()), ("img:1", "box", "100:101"));
        assert_eq!((spec.limits.cpu_millis, spec.limits.memory), (1500, 512 << 20));
        assert_eq!(spec.environment.get("B").map(String::as_str), Some("two words"));
        let volume =
            |name: &str, target: &str, read_only| VolumeMount { name: name.into(), target: target.into(), read_only };
        assert_eq!(spec.volumes, [volume("data", "/data", false)]);
        let spec = applied(&serde_json::json!({
            "image": "i", "ports": [8080, "80:80"], "volumes": ["/scratch/space", "seed:/seed:ro", "a:/a:rw,z"],
            "options": "--volume /more -v b:/b:ro",
        }));
        let expected = [
            volume("", "/scratch/space", false),
            volume("seed", "/seed", true),
            volume("a", "/a", false),
            volume("", "/more", false),
            volume("b", "/b", true),
        ];
        assert_eq!(spec.unwrap().volumes, expected);
        for none in [serde_json::json!(null), serde_json::json!(""), serde_json::json!({"image": ""})] {
            assert_eq!(applied(&none).unwrap().image, "base");
        }
    }

    #[test]
    fn what_would_give_the_host_is_refused_by_name() {
        for (container, part) in [
            (serde_json::json!({"image": "i", "options": "--privileged"}), "--privileged"),
            (serde_json::json!({"image": "i", "options": "--network host"}), "--network"),
            (serde_json::json!({"image": "i", "options": "-v /:/host"}), "host"),
            (serde_json::json!({"image": "i", "volumes": ["/var/run/docker.sock:/s"]}), "host"),
            (serde_json::json!({"image": "i", "volumes": ["../x:/s"]}), "host"),
            (serde_json::json!({"image": "i", "volumes": ["x:/a/../.."]}), "target"),
            (serde_json::json!({"image": "i", "credentials": {"username": "u"}}), "password"),
            (serde_json::json!({"image": "i", "options": "--health-cmd true"}), "--health-cmd"),
            (serde_json::json!({"image": "--rm"}), "reference"),
            (serde_json::json!({"image": "i", "options": "--memory lots"}), "size"),
        ] {
            let error = applied(&container).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn attack_30_options_that_would_give_the_host_are_refused_in_every_form() {
        for option in [
            "--privileged",
            "--privileged=true",
            "--pid=host",
            "--pid host",
            "-v /:/h",
            "-v=/:/h",
            "--volume /var/run/docker.sock:/s",
            "--mount type=bind,source=/,target=/h",
            "--device /dev/kmsg",
            "--device=/dev/kmsg",
            "--cap-add SYS_ADMIN",
            "--cap-add=ALL",
            "--security-opt seccomp=unconfined",
            "--network host",
            "--net=host",
            "--userns host",
            "--ipc=host",
            "--uts=host",
            "--cgroup-parent=/",
            "--gpus all",
            "--volumes-from other",
            "--env-file /etc/shadow",
            "--cidfile /x",
            "--add-host a:127.0.0.1",
            "--sysctl kernel.panic=1",
            "--ulimit nproc=-1",
            "--ulimit nofile=1048576",
            "--storage-opt size=999G",
            "--tmpfs /x:size=900g",
            "--memory-swap -1",
            "--memory-swappiness 100",
            "--memory-reservation 1m",
            "--kernel-memory 900g",
            "--oom-kill-disable",
            "--oom-score-adj -1000",
            "--cpu-shares 262144",
            "--cpu-quota -1",
            "--cpu-period 1000",
            "--cpu-rt-runtime 950000",
            "--cpuset-cpus 0-63",
            "--blkio-weight 1000",
            "--log-opt max-size=900g",
            "--runtime runc",
            "'--privileged'",
            "-itv /:/h",
        ] {
            for before in ["", "--cpus 1 "] {
                let container = serde_json::json!({"image": "i", "options": format!("{before}{option}")});
                let name = option.trim_matches('\'').split([' ', '=']).next().unwrap();
                let error = applied(&container).unwrap_err();
                assert!(error.contains(name) || error.contains("host"), "{option}: {error}");
                let value = Value::from_json(&container);
                let error = service("s", &value, plain("base", "a".into(), ResourceLimits::default())).unwrap_err();
                assert!(error.contains(name) || error.contains("host"), "{option}: {error}");
            }
        }
    }

    #[test]
    fn attack_30_no_value_of_an_option_lifts_a_limit() {
        for option in [
            "--pids-limit 0",
            "--pids-limit=0",
            "--pids-limit +0",
            "--pids-limit -1",
            "--pids-limit=-1",
            "--pids-limit ''",
            "--pids-limit 1 --pids-limit 0",
            "--memory 0",
            "--memory 0g",
            "-m 0",
            "--memory -1",
            "--memory 18446744073709551615g",
            "--shm-size 0",
            "--shm-size -1",
            "--cpus 0",
            "--cpus 0.0001",
            "--cpus -1",
            "--cpus nan",
            "--cpus inf",
        ] {
            let container = serde_json::json!({"image": "i", "options": option});
            let error = applied(&container).unwrap_err();
            assert!(error.contains("needs a number above 0") || error.contains("is no size"), "{option}: {error}");
            let value = Value::from_json(&container);
            assert!(service("s", &value, plain("base", "a".into(), ResourceLimits::default())).is_err(), "{option}");
        }
    }

    #[test]
    fn attack_32_no_volume_covers_what_runs_the_job() {
        for target in [
            "/",
            "//",
            "/.",
            "/proc",
            "/proc/self",
            "/sys/fs",
            "/dev",
            "/dev/shm",
            "/longshore",
            "/longshore/bin",
            "/longshore//bin/",
            "/./longshore/temp",
            "/workspace",
            "/workspace/x",
            "/github",
            "/github/home",
            "/a/../proc",
            "relative",
        ] {
            let container = serde_json::json!({"image": "i", "volumes": [format!("x:{target}")]});
            let error = applied(&container).unwrap_err();
            assert!(error.contains("target") || error.contains("write NAME"), "{target}: {error}");
        }
    }

    #[test]
    fn a_job_cannot_raise_its_limits() {
        let limits = ResourceLimits { cpu_millis: 1500, ..ResourceLimits::default() };
        let mut spec = plain("base", "a".into(), limits.clone());
        let options = "--memory 900g --pids-limit 999999 --cpus 64 --shm-size 900g";
        apply(&Value::from_json(&serde_json::json!({"image": "i", "options": options})), &mut spec).unwrap();
        assert_eq!(spec.limits, ResourceLimits { shared_memory: limits.memory, ..limits });
    }
}
