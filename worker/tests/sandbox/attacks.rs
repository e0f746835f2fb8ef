//! Attacks on the host, the worker and neighbours (numbers as in the threat list).

use std::{sync::Arc, time::Duration};

use worker::sandbox::{ACTIONS_API_PORT, Machine, MachineSpec, ResourceLimits, Sandbox, docker::DockerConfig};

use crate::fixture::{run, say, script, spec, with_config, with_docker};

#[test]
fn attack_29_no_engine_is_in_reach() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let found = say(&*machine, "find / -xdev -name 'docker*.sock' -o -xdev -name 'containerd*.sock'; ls /run /var/run | grep -i sock || true").await;
        assert_eq!(found, "");
        let gateway = say(&*machine, GATEWAY).await;
        for port in [2375, 2376] {
            assert!(!reaches(&*machine, gateway.trim(), port).await);
        }
    });
}

#[test]
fn attack_33_values_reach_the_container_unchanged() {
    with_docker(|docker| async move {
        let environment =
            [("A".to_owned(), "x\n-e B=1\n--privileged".to_owned()), ("C".to_owned(), "-e D=2".to_owned())];
        let machine = docker.acquire(MachineSpec { environment: environment.into(), ..spec() }.into()).await.unwrap();
        let id = say(&*machine, "hostname").await;
        let api = bollard::Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        let container = api.inspect_container(id.trim(), None).await.unwrap();
        let seen = container.config.unwrap().env.unwrap();
        for entry in ["A=x\n-e B=1\n--privileged", "C=-e D=2"] {
            assert!(seen.iter().any(|seen| seen == entry), "{entry:?} in {seen:?}");
        }
        assert!(!seen.iter().any(|entry| entry.starts_with("B=") || entry.starts_with("D=")), "{seen:?}");
        assert_eq!(container.host_config.unwrap().privileged, Some(false));
    });
}

#[test]
fn a_root_step_cannot_speak_for_init_or_listen_to_it() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let text = "id -u; for file in fd/0 fd/1 fd/2 mem environ maps; do
            (echo forged > /proc/1/$file) 2>/dev/null && echo wrote $file
            timeout 2 head -c 1 /proc/1/$file > /workspace/got 2>/dev/null; [ -s /workspace/got ] && echo read $file
            done; readlink /proc/1/fd/0; readlink /proc/1/exe; echo end";
        assert_eq!(say(&*machine, text).await, "0\nend\n");
        assert_eq!(say(&*machine, "echo the conversation is whole").await, "the conversation is whole\n");
    });
}

#[test]
fn attack_35_root_has_no_more_than_the_short_list() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, NET_BIND_SERVICE 10, SYS_CHROOT 18.
        let mask: u64 = [0, 1, 3, 4, 5, 6, 7, 10, 18].iter().map(|bit| 1_u64 << bit).sum();
        let status = say(&*machine, "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status").await;
        let fields: Vec<_> = status.split_whitespace().collect();
        let mask = format!("{mask:016x}");
        assert_eq!(fields, ["CapEff:", &mask, "CapBnd:", &mask, "NoNewPrivs:", "1", "Seccomp:", "2"]);
        for text in
            ["echo 1 > /proc/sys/kernel/panic", "mount -t tmpfs none /mnt", "mknod /tmp/d b 7 0", "hostname other"]
        {
            assert_ne!(run(&*machine, script(text)).await.unwrap().0.code, 0, "{text}");
        }
    });
}

async fn small(docker: &dyn Sandbox) -> Arc<dyn Machine> {
    let limits = ResourceLimits {
        memory: 128 << 20,
        cpu_millis: 500,
        processes: 64,
        open_files: 256,
        ..ResourceLimits::default()
    };
    docker.acquire(MachineSpec { limits, ..spec() }.into()).await.unwrap()
}

#[test]
fn attack_36_a_greedy_job_hits_its_own_limits_and_its_neighbour_runs() {
    with_docker(|docker| async move {
        let neighbour = docker.acquire(spec().into()).await.unwrap();
        let alive = async || assert_eq!(say(&*neighbour, "echo $((6*7))").await, "42\n");

        let machine = small(&*docker).await;
        let bomb = "for i in $(seq 200); do sleep 1000 & done; echo bomb; f() { f | f & }; f; wait";
        let bomb = script(bomb);
        let process = bomb.handle.clone();
        let (exit, _, err) = tokio::join!(run(&*machine, bomb), async {
            alive().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            machine.signal(&process, 9).await;
        })
        .0
        .unwrap();
        assert_ne!(exit.code, 0);
        assert!(err.contains("Resource temporarily unavailable"), "{err}");
        machine.destroy().await;

        let machine = small(&*docker).await;
        let (exit, ..) = run(&*machine, script("perl -e '$x .= \"x\" x (1 << 20) while 1'")).await.unwrap();
        assert_eq!((exit.code, exit.out_of_memory), (137, true));
        let (exit, ..) = run(&*machine, script("true")).await.unwrap();
        assert_eq!((exit.code, exit.out_of_memory), (0, false));
        let files = "i=3; while exec {fd}</dev/null; do i=$((i+1)); [ $i -gt 300 ] && exit 9; done; exit 1";
        let (exit, _, err) = run(&*machine, script(files)).await.unwrap();
        assert!(exit.code == 1 && err.contains("Too many open files"), "{} {err}", exit.code);
        let spin = "s=$(date +%s); while [ $(($(date +%s) - s)) -lt 3 ]; do :; done; cat /proc/self/stat > /dev/null; times | tail -1";
        let (exit, ()) = tokio::join!(run(&*machine, script(spin)), alive());
        assert_eq!(exit.unwrap().0.code, 0);
        let quota =
            say(&*machine, "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us").await;
        assert!(quota.starts_with("50000"), "{quota}");
    });
}

#[test]
fn attack_36_all_containers_of_a_job_share_its_limits() {
    let limits = ResourceLimits { memory: 256 << 20, cpu_millis: 1000, processes: 200, ..ResourceLimits::default() };
    let config = DockerConfig { job_limits: Some(limits.clone()), ..DockerConfig::default() };
    with_config(config, |docker| async move {
        let spec = || MachineSpec { limits: limits.clone(), ..spec() };
        let neighbour = docker.acquire(spec().into()).await.unwrap();
        let machine = docker.acquire(spec().into()).await.unwrap();
        let containers = machine.containers().unwrap();
        let other = containers.create_container(spec(), false).await.unwrap();
        let group = std::fs::read_dir("/sys/fs/cgroup/memory/longshore")
            .or_else(|_| std::fs::read_dir("/sys/fs/cgroup/longshore"));
        if group.is_err() {
            eprintln!("skipped: control groups are not ours to write");
            return;
        }
        // Each stays within 256 MiB; both together do not.
        let hold = "perl -e '$x = \"x\" x (160 << 20); print \"held\\n\"; sleep 600'";
        let output = crate::fixture::Collected::default();
        let first = machine.run(script(hold), &output);
        let second = async {
            output.wait_for("held").await;
            run(&*other, crate::fixture::script_in("/", hold)).await.unwrap()
        };
        let out_of_memory = tokio::select! {
            ended = first => ended.unwrap().out_of_memory,
            (exit, ..) = second => exit.out_of_memory,
        };
        assert!(out_of_memory);
        let bomb = "for i in $(seq 150); do sleep 60 & done; echo started; wait";
        let output = crate::fixture::Collected::default();
        let first = machine.run(script(bomb), &output);
        let second = async {
            output.wait_for("started").await;
            run(&*other, crate::fixture::script_in("/", "for i in $(seq 150); do sleep 1 & done; wait")).await.unwrap()
        };
        tokio::select! {
            _ = first => panic!("it ended"),
            (_, _, err) = second => assert!(err.contains("Resource temporarily unavailable"), "{err}"),
        }
        assert_eq!(say(&*neighbour, "echo $((6*7))").await, "42\n");
    });
}

/// What bash's `times` says of its children, user and system together, in seconds.
fn cpu_seconds(times: &str) -> f64 {
    let children = times.lines().last().unwrap().split_whitespace().map(|part| {
        let (minutes, seconds) = part.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    });
    children.sum()
}

#[test]
fn attack_36_a_fork_bomb_leaves_its_neighbours_their_cpus() {
    let limits = ResourceLimits { cpu_millis: 500, ..ResourceLimits::default() };
    let config = DockerConfig { job_limits: Some(limits.clone()), ..DockerConfig::default() };
    with_config(config, |docker| async move {
        let machine = docker.acquire(MachineSpec { limits, ..spec() }.into()).await.unwrap();
        let bomb = "bash -c 'for i in $(seq 200); do timeout 6 sh -c \"while :; do :; done\" & done; wait; times'";
        let began = std::time::Instant::now();
        let used = cpu_seconds(&say(&*machine, bomb).await);
        let allowed = 0.5 * began.elapsed().as_secs_f64();
        // The scheduler gives by slices of a tenth of a second.
        assert!(used > 0.5 && used <= 1.2 * allowed, "it used {used:.1} s of CPU time, {allowed:.1} s were its share");
    });
}

#[test]
fn attack_37_nothing_outlives_the_job() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let mark = format!("100{}", rand::random::<u32>());
        say(&*machine, &format!("setsid nohup sleep {mark} > /dev/null 2>&1 < /dev/null &")).await;
        // The shell does not wait for what it starts.
        let seen = async {
            while !runs_here(&mark) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the daemon is seen from the host first");
        machine.destroy().await;
        docker.close().await;
        assert!(!runs_here(&mark));
    });
}

/// Whether a process of this machine has an argument.
fn runs_here(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes()))
    })
}

/// Prints the default gateway, which is the host.
const GATEWAY: &str =
    "perl -ane 'print join(\".\", map { hex } reverse $F[2] =~ /../g) if $F[1] eq \"00000000\"' /proc/net/route";

async fn reaches(machine: &dyn Machine, address: &str, port: u16) -> bool {
    let text = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    run(machine, script(&text)).await.unwrap().0.code == 0
}

#[test]
fn attack_42_a_job_cannot_reach_the_host_or_another_job() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let other = docker.acquire(spec().into()).await.unwrap();
        // Stands for the coordinator's gRPC port: listens on every address of the host.
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = say(&*machine, GATEWAY).await;
        let gateway = gateway.trim();
        assert!(gateway.starts_with("10.213."), "{gateway}");
        // The address is good: who is not in a job's network gets through.
        tokio::net::TcpStream::connect((gateway, port)).await.unwrap();
        assert!(!reaches(&*machine, gateway, port).await);
        assert!(!reaches(&*machine, "172.17.0.1", port).await);
        assert!(!reaches(&*machine, "169.254.169.254", 80).await);
        let address = say(&*other, "hostname -i").await;
        let address = address.trim();
        let output = crate::fixture::Collected::default();
        let serving = other.run(script(SERVE), &output);
        let trying = async {
            output.wait_for("listening").await;
            // It is there for who may: the host.
            tokio::net::TcpStream::connect((address, 8080)).await.unwrap();
            assert!(!reaches(&*machine, address, 8080).await);
        };
        tokio::select! {
            _ = serving => panic!("the neighbour stopped serving"),
            () = trying => {}
        }
    });
}

/// An address that this machine has for as long as the test goes on: of a metadata service, of a private network.
struct OwnAddress(&'static str);

impl OwnAddress {
    fn add(address: &'static str) -> Self {
        ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]);
        Self(address)
    }
}

impl Drop for OwnAddress {
    fn drop(&mut self) {
        ip(&["addr", "del", &format!("{}/32", self.0), "dev", "lo"]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

#[test]
fn attack_41_metadata_services_and_private_networks_are_out_of_a_jobs_reach() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["169.254.169.254", "169.254.170.2", "100.100.100.200", "100.64.9.1", "192.168.209.1"] {
            let _own = OwnAddress::add(address);
            tokio::net::TcpStream::connect((address, port)).await.unwrap();
            assert!(!reaches(&*machine, address, port).await, "{address}");
        }
    });
}

#[test]
fn attack_42_rules_that_somebody_flushed_stand_again_after_the_next_sweep() {
    // Addresses of its own: what is flushed here protects nobody else's jobs.
    let config = DockerConfig { addresses: ([10, 231, 0, 0].into(), 16), ..DockerConfig::default() };
    with_config(config, |docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = say(&*machine, GATEWAY).await;
        assert!(!reaches(&*machine, gateway.trim(), port).await);
        let flush = "iptables -w -t mangle -S | grep -F 10.231.0.0/16 | sed 's/^-A/-D/' | \
                     while read -r rule; do iptables -w -t mangle $rule; done";
        assert!(std::process::Command::new("sh").args(["-c", flush]).status().unwrap().success());
        assert!(reaches(&*machine, gateway.trim(), port).await, "nothing was flushed");
        docker.sweep().await.unwrap();
        assert!(!reaches(&*machine, gateway.trim(), port).await);
    });
}

/// The engine takes its own isolation of networks away for a moment whenever one is made.
#[test]
fn attack_42_two_jobs_stay_apart_while_networks_come_and_go() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let other = docker.acquire(spec().into()).await.unwrap();
        let address = say(&*other, "hostname -i").await;
        let output = crate::fixture::Collected::default();
        let serving = other.run(script(SERVE), &output);
        let attempts = format!(
            "perl -MIO::Socket::INET -e 'for (1 .. 400) {{ $s = IO::Socket::INET->new(PeerAddr => \"{}:8080\", \
             Timeout => 0.02) and print \"in\\n\"; }} print \"tried\\n\"'",
            address.trim()
        );
        let trying = async {
            output.wait_for("listening").await;
            let mut tried = std::pin::pin!(say(&*machine, &attempts));
            loop {
                tokio::select! {
                    tried = &mut tried => return tried,
                    made = docker.acquire(spec().into()) => drop(made.unwrap()),
                }
            }
        };
        tokio::select! {
            _ = serving => panic!("the neighbour stopped serving"),
            tried = trying => assert_eq!(tried, "tried\n"),
        }
    });
}

#[test]
fn attack_63_the_services_that_actions_call_are_in_reach_of_their_own_job_alone() {
    with_docker(|docker| async move {
        let machine = docker.acquire(spec().into()).await.unwrap();
        let other = docker.acquire(spec().into()).await.unwrap();
        let _port = machine.listen().await.unwrap();
        let address = say(&*machine, "hostname -i").await;
        assert!(reaches(&*machine, "127.0.0.1", ACTIONS_API_PORT).await, "the job itself gets through");
        assert!(tokio::net::TcpStream::connect((address.trim(), ACTIONS_API_PORT)).await.is_err());
        assert!(!reaches(&*other, address.trim(), ACTIONS_API_PORT).await);
    });
}

/// Listens until it is ended.
const SERVE: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 64, LocalPort => 8080) or die; \
                     $|++; print \"listening\\n\"; while (1) { $s->accept }'";

#[test]
fn attack_42_rules_that_a_restart_dropped_are_set_again_by_the_next_sweep() {
    let block = std::net::Ipv4Addr::new(10, 214, 0, 0);
    with_config(DockerConfig { addresses: (block, 16), ..DockerConfig::default() }, |docker| async move {
        let jump = async |verb: &str| {
            let rule = ["FORWARD", "-s", "10.214.0.0/16", "-j", "LONGSHORE"];
            let command = ["-w", "-t", "mangle", verb];
            let output = tokio::process::Command::new("iptables").args(command).args(rule).output().await.unwrap();
            output.status.success()
        };
        assert!(jump("-C").await, "set at the start");
        assert!(jump("-D").await);
        docker.sweep().await.unwrap();
        assert!(jump("-C").await, "set again");
    });
}
