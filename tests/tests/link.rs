//! A coordinator and its workers over real sockets and real TLS. Only the run side is a stand-in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "link/pool.rs"]
mod pool;

use std::time::Duration;

use pool::{Pool, Script, terms};
use workflow::plan::Conclusion;

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_job_runs_and_its_log_and_result_come_back() {
    let pool = Pool::start(terms()).await;
    let worker = pool.worker("one", Script::Print(3)).await;
    pool.queue("build", &["ubuntu-latest"]);
    let report = pool.finished("build").await;
    assert_eq!(report.conclusion, Conclusion::Success);
    assert_eq!(pool.log("build", 1), ["line 0\n", "line 1\n", "line 2\n"].concat());
    assert!(pool.log_closed("build", 1), "the log is whole before the result counts");
    assert_eq!(pool.begun("build"), 1);
    worker.drain(Duration::from_secs(5)).await;
}
