//! What a job may take of the disk, and what is left of it afterwards.

use std::{process::Command, sync::Arc, time::Duration};

use worker::sandbox::{
    DiskBound, DiskBreach, JobSpec, Machine, MachineSpec, Sandbox, SandboxError, VolumeMount, docker::DockerConfig,
    service::ServiceSpec,
};

use crate::fixture::{Collected, image, run, say, script, spec, with_config};

const MIB: u64 = 1 << 20;
/// Bytes that jobs may use here.
const LIMIT: u64 = 100 * MIB;

/// Fills a disk through a file that has no name.
const UNLINKED: &str = "exec 7<>held; rm held; dd if=/dev/zero bs=1M count=300 >&7; sleep 600";
/// Below a path that is longer than any call takes.
const DEEP: &str = "for i in $(seq 40); do d=$(printf 'd%.0s' $(seq 200)); mkdir $d; cd -P ./$d; done
    dd if=/dev/zero of=big bs=1M count=300; sleep 600";
const NAMES: &str = "mkdir many; cd many; seq 400000 | xargs touch; sleep 600";
/// Files that stand beside the layer of a container.
const GIVEN: &str =
    "for f in hosts hostname resolv.conf; do dd if=/dev/zero of=/etc/$f bs=1M count=60; done; sleep 600";
/// By a thread of a process whose first thread has ended.
const THREAD: &str = "cat > hold.py <<'END'
import ctypes, os, threading, time
def hold():
    held = os.open('held', os.O_RDWR | os.O_CREAT)
    os.unlink('held')
    for _ in range(300):
        os.write(held, bytes(1 << 20))
    time.sleep(600)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
END
python3 hold.py; sleep 600";
const PLAIN: &str = "dd if=/dev/zero of=big bs=1M count=300; sleep 600";

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image that declares volumes, and goes once no container has it any more: it outlives the sandbox of its test.
struct VolumeImage(String);

impl VolumeImage {
    fn new() -> Self {
        Self(format!("localhost/longshore-test-volume:{:016x}", rand::random::<u64>()))
    }

    /// With one volume, and a file in it.
    fn build(&self) {
        let name = &self.0;
        sh(&format!(
            "id=$(docker create --network none {} sh -c 'mkdir /data && echo inside > /data/file && chmod 777 /data'); docker start -a $id
             docker commit --change 'VOLUME /data/' $id {name}; docker rm $id",
            image()
        ));
    }
}

impl Drop for VolumeImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

/// Waits until the job of a machine would be ended, while a script runs in it, and a neighbour works.
async fn ended(docker: &dyn Sandbox, machine: &Arc<dyn Machine>, folder: &str, text: &str) -> DiskBreach {
    let neighbour = docker.acquire(spec().into()).await.unwrap();
    let output = Collected::default();
    let filling = machine.run(script(&format!("cd {folder}; {text}")), &output);
    let watching = async {
        tokio::select! {
            breach = machine.watch_disk(LIMIT) => breach,
            breach = neighbour.watch_disk(LIMIT) => panic!("the neighbour was ended: {breach}"),
        }
    };
    let breach = tokio::select! {
        ended = filling => panic!("{text}: it ended by itself: {ended:?} {}", output.text(worker::sandbox::OutputStream::Stderr)),
        breach = tokio::time::timeout(Duration::from_secs(60), watching) => breach,
    };
    let breach = breach.unwrap_or_else(|_| panic!("{folder}: {text}: not stopped"));
    assert_eq!(say(&*neighbour, "echo x > /workspace/x; cat /workspace/x").await, "x\n");
    machine.destroy().await;
    breach
}

#[test]
fn attack_36_no_way_around_the_disk_limit_where_all_is_counted() {
    let volume = &VolumeImage::new();
    with_config(DockerConfig::default(), |docker| async move {
        assert_eq!(docker.disk_bound(), DiskBound::Counted);
        volume.build();
        for (image, folder, text) in [
            (image(), "/workspace", UNLINKED),
            (image(), "/workspace", DEEP),
            (image(), "/var/tmp", UNLINKED),
            (image(), "/var/tmp", DEEP),
            (image(), "/var/tmp", NAMES),
            (image(), "/var/tmp", GIVEN),
            (image(), "/var/tmp", THREAD),
            (volume.0.clone(), "/data", PLAIN),
            (volume.0.clone(), "/data", UNLINKED),
        ] {
            let machine = docker.acquire(MachineSpec { image, ..spec() }.into()).await.unwrap();
            let breach = ended(&*docker, &machine, folder, text).await;
            assert_eq!(breach, DiskBreach::Limit { limit: LIMIT }, "{folder}: {text}");
        }
    });
}

#[test]
fn attack_36_a_volume_of_a_fixed_size_never_takes_more() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().to_owned();
    let config = DockerConfig { volumes: Some((images.clone(), LIMIT)), ..DockerConfig::default() };
    let volume = &VolumeImage::new();
    with_config(config, |docker| async move {
        if docker.disk_bound() != DiskBound::Volumes {
            eprintln!("skipped: no loop devices");
            return;
        }
        volume.build();
        for (image, folder, text) in [
            (image(), "/workspace", PLAIN),
            (image(), "/workspace", UNLINKED),
            (image(), "/workspace", DEEP),
            (image(), "/workspace", NAMES),
            (image(), "/named", PLAIN),
            (image(), "/var/tmp", UNLINKED),
            (volume.0.clone(), "/data", UNLINKED),
        ] {
            let volumes = vec![VolumeMount { name: "mine".into(), target: "/named".into(), read_only: false }];
            let machine = docker.acquire(MachineSpec { image, volumes, ..spec() }.into()).await.unwrap();
            let breach = ended(&*docker, &machine, folder, text).await;
            assert_eq!(breach, DiskBreach::Limit { limit: LIMIT }, "{folder}: {text}");
        }
        // The bound itself, whoever looks.
        let machine = docker.acquire(spec().into()).await.unwrap();
        assert_eq!(say(&*machine, "ls -A /workspace").await, "", "a workspace is empty");
        let (exit, _, err) = run(&*machine, script("dd if=/dev/zero of=big bs=1M")).await.unwrap();
        assert!(exit.code != 0 && err.contains("No space left on device"), "{err}");
        let size: u64 = say(&*machine, "stat -c %s big").await.trim().parse().unwrap();
        assert!((LIMIT / 2..=LIMIT).contains(&size), "{size}");
        // What it gives up is there again; a hole takes nothing.
        say(&*machine, "rm big; sync; truncate -s 3G sparse; sleep 1; echo x > more").await;
        drop(machine);

        let machine = docker.acquire(MachineSpec { image: volume.0.clone(), ..spec() }.into()).await.unwrap();
        assert_eq!(say(&*machine, "cat /data/file").await, "inside\n", "as the engine fills such a volume");
    });
    let attached = String::from_utf8(Command::new("losetup").arg("-a").output().unwrap().stdout).unwrap();
    assert!(!attached.contains(images.to_str().unwrap()), "{attached}");
    assert_eq!(std::fs::read_dir(&images).unwrap().count(), 0);
}

#[test]
fn the_largest_job_ends_where_the_disk_runs_full() {
    // As if all that is left were in reserve.
    let config = DockerConfig { min_free: u64::MAX, ..DockerConfig::default() };
    with_config(config, |docker| async move {
        let small = docker.acquire(spec().into()).await.unwrap();
        let large = docker.acquire(spec().into()).await.unwrap();
        say(&*small, "head -c 100M /dev/zero > /workspace/some").await;
        say(&*large, "head -c 600M /dev/zero > /var/tmp/much").await;
        let breach = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                breach = large.watch_disk(0) => breach,
                breach = small.watch_disk(0) => panic!("the smaller one was ended: {breach}"),
            }
        });
        let breach = breach.await.expect("nobody was ended");
        let DiskBreach::LowSpace { used, .. } = breach else { panic!("{breach}") };
        assert!(used >= 600 * MIB, "{used}");
        assert!(breach.to_string().contains("used the most of it"), "{breach}");
    });
}

#[test]
fn an_image_cannot_declare_any_number_of_volumes() {
    let image_of_many = &VolumeImage::new();
    with_config(DockerConfig::default(), |docker| async move {
        let name = &image_of_many.0;
        let changes: String = (0..40).map(|number| format!(" --change 'VOLUME /v{number}'")).collect();
        sh(&format!("id=$(docker create {} true); docker commit {changes} $id {name}; docker rm $id", image()));
        let error = docker.acquire(MachineSpec { image: name.clone(), ..spec() }.into()).await.err().unwrap();
        assert!(error.to_string().contains("declares 40 volumes"), "{error}");
    });
}

#[test]
fn attack_36_the_volumes_of_a_job_are_counted_with_those_of_its_services() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().to_owned();
    let config = DockerConfig { volumes: Some((images, LIMIT)), ..DockerConfig::default() };
    with_config(config, |docker| async move {
        let volumes = |of: &str, number| {
            let volume = |at| VolumeMount { name: format!("{of}{at}"), target: format!("/v/{at}"), read_only: false };
            (0..number).map(volume).collect()
        };
        let service = |name: &str, number| ServiceSpec {
            name: name.to_owned(),
            machine: MachineSpec { volumes: volumes(name, number), ..spec() },
            command: ["sleep", "600"].map(String::from).into(),
            ..ServiceSpec::default()
        };
        let job = |of_last| JobSpec {
            machine: MachineSpec { volumes: volumes("own", 10), ..spec() },
            services: vec![service("a", 10), service("b", of_last)],
        };
        // What is named twice is one, and the workspace is one too.
        drop(docker.acquire(job(11)).await.unwrap());
        let error = docker.acquire(job(12)).await.err().unwrap();
        assert!(matches!(&error, SandboxError::Refused(cause) if cause.contains("may have 32 volumes")), "{error}");
    });
}
