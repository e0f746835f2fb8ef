//! Whose an image is, and how long it stays.

use std::{process::Command, sync::atomic::Ordering, time::Duration};

use parking_lot::Mutex;
use worker::sandbox::{Credentials, DiskBreach, MachineSpec, STAGE_IMAGE, Sandbox, SandboxError, docker::DockerConfig};

use crate::{
    fixture::{image, say, spec, with_config},
    registry::{Registry, password},
};

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Removes images after a test, once no container has them any more: it outlives the sandbox.
#[derive(Default)]
struct RemovedImages(Mutex<Vec<String>>);

impl RemovedImages {
    fn add(&self, images: &[String]) {
        self.0.lock().extend_from_slice(images);
    }
}

impl Drop for RemovedImages {
    fn drop(&mut self) {
        for image in self.0.get_mut() {
            docker(&["rmi", "-f", image]);
        }
    }
}

async fn start(docker: &dyn Sandbox, image: &str, credentials: Option<Credentials>) -> Result<(), SandboxError> {
    let spec = MachineSpec { image: image.to_owned(), credentials, ..spec() };
    docker.acquire(spec.into()).await.map(drop)
}

async fn refused(docker: &dyn Sandbox, image: &str, credentials: Option<Credentials>) -> String {
    match start(docker, image, credentials).await {
        Err(SandboxError::Refused(text)) => text,
        other => panic!("{image}: {other:?}"),
    }
}

#[test]
fn attack_39_what_one_job_pulled_with_its_password_is_not_anothers() {
    let config = DockerConfig {
        local_images: Some(vec![image()]),
        private_registries: vec!["127.0.0.1".into()],
        ..DockerConfig::default()
    };
    let removed = &RemovedImages::default();
    with_config(config, |sandbox| async move {
        let (registry, open) = (Registry::start(false).await, Registry::start(true).await);
        let (private, public) = (registry.image("tool:1"), open.image("tool:1"));
        removed.add(&[private.clone(), public.clone()]);
        start(&*sandbox, &private, Some(password())).await.unwrap();
        let wrong = Credentials { password: "guess".to_owned().into(), ..password() };
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &private]);
        let short = &id["sha256:".len()..][..12];
        for (name, credentials, part) in [
            (private.as_str(), None, "its registry does not give it to this job"),
            (&private, Some(wrong.clone()), "its registry does not give it to this job"),
            (&id, None, "named by its id"),
            (&id, Some(wrong), "named by its id"),
            (short, None, "named by its id"),
        ] {
            let text = refused(&*sandbox, name, credentials).await;
            assert!(text.contains(part), "{name}: {text}");
        }

        // Who showed the password once is not asked again.
        let asked = registry.asked.load(Ordering::Relaxed);
        start(&*sandbox, &private, Some(password())).await.unwrap();
        assert_eq!(registry.asked.load(Ordering::Relaxed), asked);
        // What everybody is given is everybody's, with a password or without.
        start(&*sandbox, &public, None).await.unwrap();
        start(&*sandbox, &public, Some(password())).await.unwrap();
        start(&*sandbox, &public, None).await.unwrap();
    });
}

#[test]
fn attack_60_a_registry_in_the_operators_network_is_not_asked_by_any_form_of_a_name() {
    let config = DockerConfig { local_images: Some(vec![image()]), ..DockerConfig::default() };
    let removed = &RemovedImages::default();
    with_config(config, |sandbox| async move {
        let registry = Registry::start(true).await;
        let there = registry.image("kept:1");
        removed.add(std::slice::from_ref(&there));
        docker(&["tag", &image(), &there]);
        for name in [registry.image("tool:1"), there, registry.image("tool:1").replace("127.0.0.1", "127.1")] {
            let text = refused(&*sandbox, &name, None).await;
            assert!(text.contains("no public address"), "{text}");
        }
        assert_eq!(registry.asked.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn attack_39_images_of_the_operator_are_a_jobs_where_they_are_named_for_it() {
    let config = DockerConfig {
        local_images: Some(vec![image(), "localhost/given-*".into()]),
        private_registries: vec!["127.0.0.1".into()],
        ..DockerConfig::default()
    };
    let removed = &RemovedImages::default();
    with_config(config, |sandbox| async move {
        let (registry, open) = (Registry::start(false).await, Registry::start(true).await);
        let mark = hex::encode(rand::random::<[u8; 8]>());
        let names = [
            registry.image(&format!("kept-{mark}:1")),
            open.image(&format!("kept-{mark}:1")),
            format!("localhost/kept-{mark}:1"),
            // Such a name is ours where this worker made it.
            format!("localhost/longshore-action:{mark}"),
            format!("localhost/given-{mark}:1"),
        ];
        removed.add(&names);
        for name in &names {
            docker(&["tag", &image(), name]);
        }
        for name in &names[..4] {
            let text = refused(&*sandbox, name, None).await;
            assert!(text.contains("local_images"), "{text}");
        }
        start(&*sandbox, &names[4], None).await.unwrap();
        start(&*sandbox, &image(), None).await.unwrap();
    });
}

#[test]
fn pulled_images_go_when_there_are_too_many_and_what_is_in_use_or_the_operators_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("images.json");
    let config = DockerConfig { image_bytes: 1, pulled_images: Some(file), ..DockerConfig::default() };
    let of_another_process = config.clone();
    let removed = &RemovedImages::default();
    with_config(config, |sandbox| async move {
        let public = Registry::start(true).await.image("tool:1");
        removed.add(std::slice::from_ref(&public));
        let is_there = || !docker(&["image", "ls", "-q", &public]).is_empty();
        let held = sandbox.acquire(MachineSpec { image: public.clone(), ..spec() }.into()).await.unwrap();
        sandbox.sweep().await.unwrap();
        assert!(is_there(), "a machine runs on it");
        drop(held);
        sandbox.close().await;
        with_config_here(of_another_process, async |other| {
            other.sweep().await.unwrap();
            assert!(!is_there(), "the next process knows of it");
            assert!(!docker(&["image", "ls", "-q", &image()]).is_empty(), "nobody pulled this one");
        })
        .await;
    });
}

#[test]
fn attack_39_a_pull_ends_with_the_last_job_that_waits_for_it() {
    let removed = &RemovedImages::default();
    with_config(DockerConfig::default(), |sandbox| async move {
        // The engine brings three layers at a time, and these never come.
        let mut registries = Vec::new();
        for _ in 0..4 {
            registries.push(Registry::stalling().await);
        }
        let names: Vec<_> = registries.iter().map(|registry| registry.image("tool:1")).collect();
        // Two jobs wait for each.
        let waiting = futures::future::join_all([&names[..], &names[..]].concat().into_iter().map(|name| {
            let sandbox = &sandbox;
            async move { start(&**sandbox, &name, None).await }
        }));
        let sending = async {
            while registries.iter().map(|registry| registry.sending.load(Ordering::Relaxed)).sum::<usize>() < 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            _ = waiting => panic!("they came"),
            sending = tokio::time::timeout(Duration::from_secs(60), sending) => sending.expect("they were not asked for"),
        }
        // All of them were cancelled.
        let good = Registry::start(true).await.image("tool:1");
        removed.add(std::slice::from_ref(&good));
        let started = tokio::time::timeout(Duration::from_secs(40), start(&*sandbox, &good, None)).await;
        started.expect("the engine still waits for the others").unwrap();
    });
}

#[test]
fn attack_36_no_image_comes_before_the_floor_of_the_disk_would_end_a_job() {
    // As if all that is left were in reserve.
    with_config(DockerConfig { min_free: u64::MAX, ..DockerConfig::default() }, |sandbox| async move {
        let registry = Registry::stalling().await;
        let Err(error) = start(&*sandbox, &registry.image("tool:1"), None).await else { panic!("it came") };
        assert!(error.to_string().contains("disk is nearly full"), "{error}");
        start(&*sandbox, &image(), None).await.unwrap();
    });
}

#[test]
fn attack_36_images_between_stages_count_for_their_job_and_go_with_it() {
    with_config(DockerConfig::default(), |sandbox| async move {
        let machine = sandbox.acquire(spec().into()).await.unwrap();
        let mark = hex::encode(rand::random::<[u8; 8]>());
        let names = [1, 2].map(|number| format!("{STAGE_IMAGE}:{mark}{number}"));
        let watching = machine.watch_disk(100 << 20);
        for name in &names {
            say(&*machine, "head -c 60M /dev/urandom > /var/tmp/some").await;
            let containers = machine.need_containers("a test").unwrap();
            containers.commit_image(name, &containers.image_program()).await.unwrap();
            say(&*machine, "rm /var/tmp/some").await;
        }
        let breach = tokio::time::timeout(Duration::from_secs(60), watching).await.expect("not stopped");
        assert_eq!(breach, DiskBreach::Limit { limit: 100 << 20 });
        drop(machine);
        sandbox.close().await;
        names.iter().for_each(|name| assert_eq!(docker(&["image", "ls", "-q", name]), ""));
    });
}

async fn with_config_here(config: DockerConfig, test: impl AsyncFnOnce(&dyn Sandbox)) {
    let worker = format!("test-{:016x}", rand::random::<u64>());
    let sandbox = worker::sandbox::docker::DockerSandbox::connect(DockerConfig { worker, ..config }).await.unwrap();
    test(&*sandbox).await;
    sandbox.close().await;
}
