//! The back end without isolation keeps the same contract.

use worker::sandbox::{Command, MachineSpec, Sandbox, host::HostSandbox};

use crate::fixture::{run, script};

#[test]
fn processes_of_this_machine_run_and_end_with_their_machine() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let host = HostSandbox::new().unwrap();
        let machine = host.acquire(MachineSpec::default().into()).await.unwrap();
        let step = |text: &str| Command { directory: machine.workspace(), ..script(text) };
        let (exit, out, _) =
            run(&*machine, step("pwd; touch file; setsid sleep 1000 > /dev/null 2>&1 & echo $!; exit 4"))
                .await
                .unwrap();
        assert_eq!(exit.code, 4);
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some(&*machine.workspace()));
        let daemon = format!("/proc/{}", lines.next().unwrap());
        assert!(std::fs::exists(&daemon).unwrap());
        assert!(machine.hash_files(&["file".into()]).await.unwrap().is_some());
        machine.destroy().await;
        assert!(!std::fs::exists(&daemon).unwrap());
        assert!(!std::fs::exists(machine.workspace()).unwrap());
    });
}
