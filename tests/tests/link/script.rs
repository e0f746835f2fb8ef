//! Workers that run scripts instead of containers.

use std::sync::Arc;

use futures::{TryStreamExt as _, future::BoxFuture};
use proto::worker::LogRecord;
use tokio_util::sync::CancellationToken;
use worker::{
    coordinator_client::{AssignedJob, Executor, encode_report},
    fetch::{CheckoutOptions, checkout},
    github::uses::Uses,
    job::ProgressReporter,
    log::LogSink as _,
};
use workflow::plan::{Conclusion, JobReport, Reason};

/// What a worker does instead of running containers.
#[derive(Clone)]
pub(crate) enum Script {
    /// Prints lines and ends.
    Print(usize),
    /// Prints this many pieces of 64 KiB and ends.
    Flood(usize),
    /// Prints a line, then waits until it is cancelled or killed.
    Wait,
    /// Checks its source out and prints the names in the archive.
    Checkout,
    /// Brings the action `acme/tool@v1` and prints its commit and its files.
    Action,
    /// As `Wait`, but goes on when told.
    Until(CancellationToken),
}

impl Executor for Script {
    fn execute(&self, attempt: AssignedJob, observer: Arc<dyn ProgressReporter>) -> BoxFuture<'static, Vec<u8>> {
        let script = self.clone();
        Box::pin(async move {
            observer.begun();
            let sink = attempt.log.open().unwrap();
            let (source, sources) = (attempt.order().unwrap().source, attempt.sources());
            let line = |text: String| LogRecord { text: text.into(), ..LogRecord::default() };
            let mut conclusion = Conclusion::Success;
            match script {
                Self::Print(lines) => {
                    for number in 0..lines {
                        sink.append(vec![line(format!("line {number}\n"))]).await.unwrap();
                    }
                }
                Self::Flood(pieces) => {
                    for number in 0..pieces {
                        let text = format!("{number:08}").repeat(8 * 1024);
                        sink.append(vec![line(text)]).await.unwrap();
                    }
                }
                Self::Checkout => {
                    let wanted = CheckoutOptions { depth: 1, ..CheckoutOptions::default() };
                    let text = match checkout(sources.as_ref(), &source, &wanted).await {
                        Ok(out) => names(&out.archive.try_collect::<Vec<_>>().await.unwrap().concat()),
                        Err(error) => format!("{error:#}"),
                    };
                    sink.append(vec![line(text)]).await.unwrap();
                }
                Self::Action => {
                    let Ok(Uses::Remote(remote)) = Uses::parse("acme/tool@v1") else { unreachable!("it is one") };
                    let brought = sources.action(&source, &remote).await.unwrap();
                    let files = brought.archive.try_collect::<Vec<_>>().await.unwrap().concat();
                    let text = format!("{} {}", brought.commit, String::from_utf8_lossy(&files));
                    sink.append(vec![line(text)]).await.unwrap();
                }
                Self::Wait => {
                    sink.append(vec![line("waiting\n".into())]).await.unwrap();
                    tokio::select! {
                        () = attempt.cancel.cancelled() => {}
                        () = attempt.kill.cancelled() => {}
                    }
                    conclusion = Conclusion::Cancelled;
                }
                Self::Until(go) => {
                    sink.append(vec![line("waiting\n".into())]).await.unwrap();
                    tokio::select! {
                        biased;
                        () = go.cancelled() => {}
                        () = attempt.kill.cancelled() => conclusion = Conclusion::Cancelled,
                    }
                }
            }
            encode_report(&JobReport {
                conclusion,
                reason: (conclusion != Conclusion::Success).then(|| Reason::Cancelled("told to".into())),
                exit_code: 0,
                steps: Vec::new(),
                outputs: Default::default(),
                environment: None,
                annotations: Vec::new(),
                summary: String::new(),
                started: true,
                image: None,
                actions: Default::default(),
                started_at_ms: 0,
                finished_at_ms: 0,
            })
        })
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn names(archive: &[u8]) -> String {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let mut names: Vec<String> = entries.filter(|name| !name.contains(".git/")).collect();
    names.sort();
    names.join(" ")
}
