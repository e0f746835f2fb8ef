//! `services:` of a job: starts their containers beside the job's and waits until they are healthy.

use std::{collections::HashSet, sync::Arc, time::Duration};

use proto::STEP_SETUP;
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};
use workflow::{expression::Value, plan::Tree};

use super::{
    Job,
    container::{self, PortMapping},
    contexts::Contexts,
};
use crate::sandbox::{
    Machine, MachineSpec,
    service::{Service, ServiceSpec, ServiceState},
};

/// How often a service is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often the log says who is waited for.
const NOTICE_INTERVAL: Duration = Duration::from_secs(10);
/// Ports of localhost for services that name none, from here on.
const FIRST_PORT: u16 = 32_768;

/// A service that was started.
struct StartedService {
    name: String,
    ports: Vec<(u16, u16)>,
    service: Arc<dyn Service>,
}

/// Reads the job's services, before the job has a place: `contexts` are those before the machine.
pub(super) async fn plan(
    job: &Job,
    contexts: &Contexts,
    tree: &Tree,
    plain: &MachineSpec,
) -> Result<Vec<ServiceSpec>, String> {
    let services = match contexts.before_steps(tree).map_err(|error| format!("services: {error}"))? {
        Value::Null => return Ok(Vec::new()),
        Value::Object(services) => services,
        other => return Err(format!("services must be a mapping, not {}", other.kind_name())),
    };
    let mut wanted = Vec::new();
    for (name, value) in services.iter() {
        match container::service(name, value, plain.clone()).map_err(|problem| format!("services.{name}: {problem}"))? {
            Some((mut spec, ports)) => {
                job.keep_token(&format!("services.{name}"), &mut spec.machine).await;
                wanted.push((spec, ports));
            }
            None => job.log.notice(STEP_SETUP, &format!("Service {name}: no image, left out")).await,
        }
    }
    let ports = near_ports(&wanted)?;
    let mut specs = Vec::new();
    for ((spec, _), ports) in wanted.into_iter().zip(ports) {
        job.log.notice(STEP_SETUP, &format!("Service {}: starting {}", spec.name, spec.machine.image)).await;
        specs.push(ServiceSpec { ports, ..spec });
    }
    Ok(specs)
}

/// Waits for the job's services. When it returns, all are healthy, and the `job` context knows them.
pub(super) async fn wait_until_ready(
    job: &Job,
    contexts: &mut Contexts,
    machine: &dyn Machine,
    specs: &[ServiceSpec],
) -> Result<(), String> {
    let services = machine.containers().map(|containers| containers.services()).unwrap_or_default();
    let started: Vec<_> = specs
        .iter()
        .zip(services)
        .map(|(spec, service)| StartedService { name: spec.name.clone(), ports: spec.ports.clone(), service })
        .collect();
    wait(job, &started).await?;
    contexts.services = started.iter().map(|started| (started.name.clone(), context(started))).collect();
    Ok(())
}

/// Ports of localhost for each service: those it names, and free ones for the others.
fn near_ports(wanted: &[(ServiceSpec, Vec<PortMapping>)]) -> Result<Vec<Vec<(u16, u16)>>, String> {
    let mut taken = HashSet::new();
    for (spec, ports) in wanted {
        for near in ports.iter().filter_map(|port| port.near) {
            if !taken.insert(near) {
                return Err(format!("services.{}: port {near} of localhost is taken twice", spec.name));
            }
        }
    }
    let mut free = (FIRST_PORT..=u16::MAX).filter(|port| !taken.contains(port));
    let mut find = |port: &PortMapping| port.near.or_else(|| free.next()).map(|near| (near, port.far));
    Ok(wanted.iter().map(|(_, ports)| ports.iter().filter_map(&mut find).collect()).collect())
}

async fn wait(job: &Job, started: &[StartedService]) -> Result<(), String> {
    let began = Instant::now();
    let mut said = began;
    let mut waiting: Vec<&StartedService> = started.iter().collect();
    loop {
        let mut still = Vec::new();
        for one in waiting {
            let name = &one.name;
            match one.service.state().await.map_err(|error| format!("services.{name}: {error}"))? {
                ServiceState::Ready => job.log.notice(STEP_SETUP, &format!("Service {name}: ready")).await,
                ServiceState::Starting => still.push(one),
                ServiceState::Unhealthy => return Err(lost(job, one, "its health check fails").await),
                ServiceState::Ended { out_of_memory: true, .. } => {
                    return Err(lost(job, one, "it used more memory than it may").await);
                }
                ServiceState::Ended { code, .. } => {
                    return Err(lost(job, one, &format!("it ended with exit code {code}")).await);
                }
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return Ok(());
        }
        if said.elapsed() >= NOTICE_INTERVAL || said == began {
            said = Instant::now();
            let names: Vec<_> = waiting.iter().map(|one| one.name.as_str()).collect();
            let text = format!("Waiting for health checks ({} s): {}", began.elapsed().as_secs(), names.join(", "));
            job.log.notice(STEP_SETUP, &text).await;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Shows what a service said last; gives the reason of the job's end.
async fn lost(job: &Job, started: &StartedService, why: &str) -> String {
    let name = &started.name;
    let lines = started.service.last_lines().await;
    let text = match lines.is_empty() {
        true => format!("Service {name} printed nothing"),
        false => format!("Service {name} printed last:\n{lines}"),
    };
    job.log.notice(STEP_SETUP, &text.replace('\n', "\n| ")).await;
    format!("services.{name}: {why}; its last lines are in the log of \"Set up job\"")
}

/// `job.services.<id>` (GitHub docs, "job context").
fn context(started: &StartedService) -> Tree {
    let ports: Map<_, _> = started.ports.iter().map(|(near, far)| (far.to_string(), near.to_string().into())).collect();
    json!({"id": started.service.id(), "network": started.service.network(), "ports": ports})
}
