//! What a step gets, and what comes back from it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use sha2::{Digest, Sha256};
use worker::sandbox::{
    Command, MachineSpec, OutputSink, OutputStream, Sandbox, SandboxError,
    docker::{DockerConfig, DockerSandbox},
};

use crate::fixture::{Collected, PATH, image, run, say, script, spec, with_docker};

#[test]
fn a_step_has_exactly_its_environment_directory_user_and_input() {
    with_docker(|docker| async move {
        let environment = [("CONTAINER".to_owned(), "1".to_owned())].into();
        let machine = docker.acquire(MachineSpec { environment, ..spec() }.into()).await.unwrap();
        let command = Command {
            argv: ["/usr/bin/env", "-0"].map(String::from).to_vec(),
            environment: [("A", "1"), ("NEWLINE", "a\nb=c"), ("-e", "-e X=1"), ("EMPTY", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            directory: "/workspace/new/deep".into(),
            make_directory: true,
            ..Command::default()
        };
        let (exit, out, _) = run(&*machine, command).await.unwrap();
        assert_eq!((exit.code, out.as_str()), (0, "-e=-e X=1\0A=1\0EMPTY=\0NEWLINE=a\nb=c\0"));

        let command = Command {
            input: "typed in".into(),
            user: "nobody".into(),
            directory: "/workspace/of/nobody".into(),
            make_directory: true,
            ..script("pwd; id -un; cat; touch mine")
        };
        let (exit, out, err) = run(&*machine, command).await.unwrap();
        assert_eq!((exit.code, out.as_str()), (0, "/workspace/of/nobody\nnobody\ntyped in"), "{err}");
    });
}

#[test]
fn output_comes_in_order_and_ends_with_the_code_or_signal() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let (exit, out, err) =
            run(&*machine, script("for i in $(seq 1000); do echo $i; echo e$i >&2; done; exit 7")).await.unwrap();
        assert_eq!((exit.code, exit.signal, exit.out_of_memory), (7, 0, false));
        assert_eq!(out, (1..=1000).map(|i| format!("{i}\n")).collect::<String>());
        assert_eq!(err, (1..=1000).map(|i| format!("e{i}\n")).collect::<String>());
        let (exit, ..) = run(&*machine, script("kill -9 $$")).await.unwrap();
        assert_eq!((exit.code, exit.signal), (137, 9));
    });
}

#[test]
fn a_signal_reaches_the_whole_group_of_the_running_step() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let output = Collected::default();
        let command = script("trap 'echo terminated; exit 3' TERM; sleep 1000 & echo child $!; wait");
        let process = command.handle.clone();
        machine.signal(&process, 9).await;
        let (exit, ()) = tokio::join!(machine.run(command, &output), async {
            output.wait_for("child").await;
            machine.signal(&process, 15).await;
        });
        assert_eq!(exit.unwrap().code, 3);
        let text = output.text(OutputStream::Stdout);
        assert!(text.ends_with("terminated\n"));
        let child = text.lines().next().unwrap().trim_start_matches("child ");
        assert_eq!(say(&*machine, &format!("test -e /proc/{child} || echo gone")).await, "gone\n");
    });
}

#[test]
fn processes_run_at_once_each_with_its_own_output_and_signals() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        assert_eq!(say(&*machine, "mkfifo /workspace/go").await, "");
        let first = script("trap 'echo first ended; exit 3' TERM; echo first; while true; do sleep 0.1; done");
        let (first_handle, out_one, out_two) = (first.handle.clone(), Collected::default(), Collected::default());
        let second = script("trap 'echo never' TERM; read -r line < /workspace/go; echo second $line");
        let (one, two, ()) = tokio::join!(machine.run(first, &out_one), machine.run(second, &out_two), async {
            out_one.wait_for("first").await;
            machine.signal(&first_handle, 15).await;
            out_one.wait_for("ended").await;
            assert_eq!(say(&*machine, "echo gone > /workspace/go; echo third").await, "third\n");
        });
        assert_eq!((one.unwrap().code, two.unwrap().code), (3, 0));
        assert_eq!(out_one.text(OutputStream::Stdout), "first\nfirst ended\n");
        assert_eq!(out_two.text(OutputStream::Stdout), "second gone\n");
    });
}

#[test]
fn many_that_print_less_than_what_is_kept_hold_nobody_up() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        // Together more than the first process keeps, none of them enough to be told alone.
        let one = || async {
            let text =
                "head -c 900000 /dev/zero; until test -e /workspace/go; do sleep 0.1; done; head -c 900000 /dev/zero";
            run(&*machine, script(text)).await.unwrap().1.len()
        };
        let (all, ()) = tokio::join!(futures::future::join_all((0..10).map(|_| one())), async {
            assert_eq!(say(&*machine, "touch /workspace/go; echo on").await, "on\n");
        });
        assert_eq!(all, [1_800_000; 10]);
    });
}

#[test]
fn a_step_given_up_on_is_killed_and_the_next_one_runs() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let output = Collected::default();
        {
            let running = machine.run(script("echo $$; sleep 1000"), &output);
            tokio::select! {
                _ = running => panic!("it sleeps"),
                () = output.wait_for("\n") => {}
            }
        }
        let pid = output.text(OutputStream::Stdout);
        let pid = pid.trim();
        let flood = Stuck(tokio::sync::Semaphore::new(0));
        tokio::select! {
            _ = machine.run(script("touch /workspace/flooding; yes"), &flood) => panic!("it never ends"),
            () = async {
                while machine.read(&["/workspace/flooding".into()], 1).await.unwrap().is_empty() {}
            } => {}
        }
        assert_eq!(say(&*machine, "head -c 8000000 /dev/zero").await.len(), 8_000_000);
        assert_eq!(say(&*machine, &format!("while test -e /proc/{pid}; do :; done; echo gone")).await, "gone\n");
    });
}

#[test]
fn a_program_or_user_that_is_not_there_is_named() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let error = run(&*machine, Command { argv: vec!["no-such".into()], ..script("") }).await.unwrap_err();
        assert!(
            matches!(&error, SandboxError::NotFound(text) if text.contains("no-such") && text.contains(PATH)),
            "{error}"
        );
        let error = run(&*machine, Command { user: "stranger".into(), ..script("") }).await.unwrap_err();
        assert!(matches!(&error, SandboxError::Refused(text) if text.contains("stranger")), "{error}");
        assert_eq!(say(&*machine, "echo still here").await, "still here\n");
    });
}

#[test]
fn files_go_in_before_a_step_and_come_out_after_it() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let path = |name: &str| format!("{}/{name}", machine.temp());
        let command = Command {
            files: vec![(path("a/run.sh"), "echo value > \"$1\"; ln -s /etc/passwd \"$2\"".into(), 0o755)],
            argv: vec!["bash".into(), path("a/run.sh"), path("out"), path("link")],
            collect: vec![path("out"), path("missing"), path("link")],
            ..script("")
        };
        let (exit, _, err) = run(&*machine, command).await.unwrap();
        assert_eq!(exit.code, 0, "{err}");
        assert_eq!(exit.files, [(path("out"), Bytes::from("value\n"))]);
        let read = machine.read(&[path("out"), path("missing")], 6).await.unwrap();
        assert_eq!(read, [(path("out"), Bytes::from("value\n"))]);
        let error = machine.read(&[path("out")], 5).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    });
}

#[test]
fn an_archive_is_unpacked_below_its_directory_and_nowhere_else() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let big = vec![b'x'; 3 << 20];
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, content: &[u8], link: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            archive.append(&header, content).unwrap();
        };
        add("src/main.rs", tar::EntryType::Regular, &big, "");
        add("link", tar::EntryType::Symlink, b"", "src/main.rs");
        let good = archive.into_inner().unwrap();
        let send = |bytes: Vec<u8>| stream::iter(vec![Ok(Bytes::from(bytes))]).boxed();
        say(&*machine, "touch /workspace/old").await;
        machine.unpack("/workspace", true, send(good)).await.unwrap();
        assert_eq!(
            say(&*machine, "ls -A; stat -c %s src/main.rs; readlink link").await,
            "link\nsrc\n3145728\nsrc/main.rs\n"
        );

        for (name, kind, link) in [
            ("../escape", tar::EntryType::Regular, ""),
            ("/../escape", tar::EntryType::Regular, ""),
            ("device", tar::EntryType::Char, ""),
            ("pipe", tar::EntryType::Fifo, ""),
            ("hard", tar::EntryType::Link, "../../../etc/passwd"),
        ] {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(0);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if !link.is_empty() {
                header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            }
            header.set_cksum();
            archive.append(&header, &b""[..]).unwrap();
            let refused = machine.unpack("/workspace/deep", false, send(archive.into_inner().unwrap())).await;
            assert!(matches!(refused, Err(SandboxError::Refused(_))), "{name}: {refused:?}");
        }
        assert_eq!(say(&*machine, "ls -A deep; ls /workspace/escape /escape 2>/dev/null || echo none").await, "none\n");
    });
}

#[test]
fn hash_files_is_githubs() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        say(&*machine, "mkdir a; printf 1 > a/x.lock; printf 2 > b.lock; ln -s /etc/passwd c.lock").await;
        let mut total = Sha256::new();
        total.update(Sha256::digest("1"));
        total.update(Sha256::digest("2"));
        let hash = machine.hash_files(&["**/*.lock".to_owned()]).await.unwrap();
        assert_eq!(hash, Some(hex::encode(total.finalize())));
        assert_eq!(machine.hash_files(&["*.none".to_owned()]).await.unwrap(), None);
        assert!(machine.hash_files(&["../**".to_owned()]).await.is_err());
    });
}

/// Takes output only when told to.
struct Stuck(tokio::sync::Semaphore);

impl OutputSink for Stuck {
    fn write(&self, _: OutputStream, _: Bytes, _: u64) -> BoxFuture<'_, ()> {
        async move { drop(self.0.acquire().await) }.boxed()
    }
}

#[test]
fn a_slow_sink_slows_the_step_and_fills_no_memory() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let sink = Stuck(tokio::sync::Semaphore::new(0));
        // The step notes how much it could write; with the sink stuck this has to come to rest.
        let text =
            "i=0; while [ $i -lt 2000 ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > /workspace/count; done";
        let rest = async {
            let mut last = None;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let count = machine.read(&["/workspace/count".into()], 100).await.unwrap();
                let count =
                    count.first().map(|(_, text)| String::from_utf8_lossy(text).trim().parse::<u32>().unwrap_or(0));
                match count {
                    Some(count) if last == Some(count) => return count,
                    _ => last = count,
                }
            }
        };
        let (exit, count) = tokio::join!(machine.run(script(text), &sink), async {
            let count = rest.await;
            sink.0.add_permits(1_000_000);
            count
        });
        assert!(count < 400, "{count} × 64 KiB went somewhere while nobody read");
        assert_eq!(exit.unwrap().code, 0);
    });
}

/// Counts bytes.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl OutputSink for Counting {
    fn write(&self, _: OutputStream, data: Bytes, _: u64) -> BoxFuture<'_, ()> {
        self.0.fetch_add(data.len(), std::sync::atomic::Ordering::Relaxed);
        std::future::ready(()).boxed()
    }
}

#[test]
fn a_hundred_megabytes_of_output_arrive_whole() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let sink = Counting::default();
        let text = "yes 0123456789012345678901234567890123456789012345678 | head -c 100000000";
        assert_eq!(machine.run(script(text), &sink).await.unwrap().code, 0);
        assert_eq!(sink.0.into_inner(), 100_000_000);
    });
}

#[test]
fn what_a_step_leaves_running_does_not_hold_it_up_and_goes_on() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let text = "(while :; do echo noise; sleep 0.05; done) & echo $! > /workspace/pid";
        let ended = tokio::time::timeout(Duration::from_secs(30), run(&*machine, script(text))).await;
        assert_eq!(ended.expect("the step ends").unwrap().0.code, 0);
        assert_eq!(say(&*machine, "kill -0 $(cat pid) && echo alive").await, "alive\n");
        // Its last words after the step's own end count, as with `exec > >(tee log)`.
        assert_eq!(say(&*machine, "exec > >(tee log); echo through tee").await, "through tee\n");
    });
}

#[test]
fn a_worker_that_closes_while_a_machine_starts_leaves_nothing_on_the_engine() {
    let worker = format!("test-closing-{:016x}", rand::random::<u64>());
    let ours = HashMap::from([("label".to_owned(), vec![format!("longshore.worker={worker}")])]);
    with_docker(|_| async move {
        let api = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        for wait in [0, 50, 200, 500] {
            let config = DockerConfig { worker: worker.clone(), ..DockerConfig::default() };
            let docker = DockerSandbox::connect(config).await.unwrap();
            let starting = tokio::spawn({
                let docker = Arc::clone(&docker);
                async move { docker.acquire(spec().into()).await.map(drop) }
            });
            tokio::time::sleep(Duration::from_millis(wait)).await;
            docker.stop_starts();
            let _ = starting.await.unwrap();
            docker.close().await;
            let containers = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
            assert_eq!(api.list_containers(Some(containers)).await.unwrap(), [], "after {wait} ms");
            let volumes = ListVolumesOptionsBuilder::new().filters(&ours).build();
            let volumes = api.list_volumes(Some(volumes)).await.unwrap().volumes.unwrap_or_default();
            assert_eq!(volumes, [], "after {wait} ms");
            let networks = ListNetworksOptionsBuilder::new().filters(&ours).build();
            assert_eq!(api.list_networks(Some(networks)).await.unwrap(), [], "after {wait} ms");
        }
    });
}

#[test]
fn sweeping_removes_what_no_machine_holds() {
    let worker = format!("test-sweep-{:016x}", rand::random::<u64>());
    with_docker(|docker| async move {
        let config = DockerConfig { worker, ..DockerConfig::default() };
        let first = DockerSandbox::connect(config.clone()).await.unwrap();
        let machine = first.acquire(spec().into()).await.unwrap();
        assert_eq!(first.sweep().await.unwrap(), 0);
        let neighbour = docker.acquire(spec().into()).await.unwrap();
        // A second process of the same name knows nothing of the first one's machine.
        let second = DockerSandbox::connect(config).await.unwrap();
        let lost = run(&*machine, script("sleep 1000")).await.unwrap_err();
        assert!(matches!(lost, SandboxError::Lost(_)), "{lost}");
        assert_eq!(second.sweep().await.unwrap(), 0);
        assert_eq!(say(&*neighbour, "echo here").await, "here\n");
        drop(machine);
        first.close().await;
        second.close().await;
    });
}

#[test]
fn a_job_is_started_by_the_runtime_that_is_asked_for() {
    with_docker(|docker| async move {
        let spec = |runtime: &str| MachineSpec { runtime: runtime.into(), ..spec() };
        let machine = docker.acquire(spec("runc").into()).await.unwrap();
        let api = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        let container = api.inspect_container(say(&*machine, "hostname").await.trim(), None).await.unwrap();
        assert_eq!(container.host_config.unwrap().runtime.as_deref(), Some("runc"));
        let error = docker.acquire(spec("absent").into()).await.err().unwrap().to_string();
        assert!(error.contains("runtime") && error.contains("absent"), "{error}");
    });
}

#[test]
fn what_a_killed_process_left_is_swept_by_any_worker() {
    let alive = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    // A process of this number began at another time.
    let process = |boot: &str| format!("{} {} {} 1", boot.trim(), namespace.display(), std::process::id());
    let docker = |arguments: &[&str]| {
        let output = std::process::Command::new("docker").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    with_docker(|sandbox| async move {
        let mark = format!("longshore-test-left-{:016x}", rand::random::<u64>());
        let made: Vec<_> = [process(&alive), process("another machine")]
            .iter()
            .map(|process| {
                let labels = ["longshore.pool=p", "longshore.worker=w", &format!("longshore.process={process}")]
                    .map(|label| format!("--label={label}"));
                let [a, b, c] = labels.each_ref().map(String::as_str);
                let volume = docker(&["volume", "create", a, b, c]);
                let network =
                    docker(&["network", "create", a, b, c, &format!("{mark}-{}", volume.len() + process.len())]);
                let mount = format!("{volume}:/v");
                let container =
                    docker(&["run", "-d", a, b, c, "-v", &mount, "--network", &network, &image(), "sleep", "600"]);
                (container, volume, network)
            })
            .collect();
        sandbox.sweep().await.unwrap();
        let exists = |kind: &str, id: &str| {
            std::process::Command::new("docker").args([kind, "inspect", id]).output().unwrap().status.success()
        };
        let [gone, other] = made.try_into().unwrap();
        let there = |(container, volume, network): &(String, String, String)| {
            [exists("container", container), exists("volume", volume), exists("network", network)]
        };
        assert_eq!((there(&gone), there(&other)), ([false; 3], [true; 3]));
        docker(&["rm", "-f", &other.0]);
        docker(&["volume", "rm", &other.1]);
        docker(&["network", "rm", &other.2]);
    });
}

#[test]
fn a_network_that_somebody_removed_is_made_anew() {
    let worker = format!("test-network-{:016x}", rand::random::<u64>());
    let filters = HashMap::from([("label".to_owned(), vec![format!("longshore.worker={worker}")])]);
    with_docker(|_| async move {
        let docker = DockerSandbox::connect(DockerConfig { worker, ..DockerConfig::default() }).await.unwrap();
        let api = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let kept = api.list_networks(Some(options)).await.unwrap();
        assert_eq!(kept.len(), 1, "{kept:?}");
        for network in kept {
            api.remove_network(&network.id.unwrap()).await.unwrap();
        }
        let machine = docker.acquire(spec().into()).await.unwrap();
        assert_eq!(say(&*machine, "echo here").await, "here\n");
        drop(machine);
        docker.close().await;
    });
}

#[test]
fn an_image_or_engine_that_is_not_there_is_named_with_a_remedy() {
    with_docker(|docker| async move {
        let image = "localhost/longshore-absent:1";
        let error = docker.acquire(MachineSpec { image: image.into(), ..spec() }.into()).await.err().unwrap();
        assert!(error.to_string().contains(image) && error.to_string().contains("docker load"), "{error}");
        let config = DockerConfig { socket: Some("/nonexistent/docker.sock".into()), ..DockerConfig::default() };
        let error = DockerSandbox::connect(config).await.err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, SandboxError::Engine(_)));
        assert!(text.contains("unix:///nonexistent/docker.sock") && text.contains("install docker.io"), "{text}");
    });
}
