//! The job's own token: where it is, and where it is not.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use tokio::io::DuplexStream;
use worker::job::{ActionsApiAccess, Tunnel};

use crate::{harness::Run, run};

struct Closed;

impl Tunnel for Closed {
    fn serve(&self, _: DuplexStream) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

fn with_token(mut job: Run) -> Run {
    let token = "attempts-own-token".to_owned().into();
    job.actions_api = Some(ActionsApiAccess { token, id_token: false, tunnel: Arc::new(Closed) });
    job
}

const STEPS: &str = "
- env: {T: '${{ github.token }}', S: '${{ secrets.GITHUB_TOKEN }}', HANDED: '${{ secrets.handed }}'}
  run: |
    echo \"$T\" | rev; [ \"$T\" = \"$S\" ] && echo both agree
    echo \"$HANDED\" | rev
    env | grep -c '^GITHUB_TOKEN=' || true
- run: echo '${{ toJSON(github) }}' | grep '\"token\"'";

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_job_is_its_attempts_own_in_every_form_and_masked() {
    let mut job = with_token(Run::steps(STEPS));
    job.order.token_secrets = vec!["handed".into()];
    let Some(outcome) = run(job).await else { return };
    let shown = ["nekot-nwo-stpmetta", "both agree", "nekot-nwo-stpmetta", "0", "\"token\": \"***\","];
    assert_eq!(outcome.lines().iter().map(|line| line.trim()).collect::<Vec<_>>(), shown, "{}", outcome.notices());
    assert!(!outcome.everything().contains("attempts-own-token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_user_gives_counts_before_the_token() {
    let mut job = with_token(Run::steps(STEPS)).secret("GITHUB_TOKEN", "given-by-user").secret("handed", "other");
    job.order.token_secrets = vec!["handed".into()];
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines().get(..3).unwrap(), ["resu-yb-nevig", "both agree", "rehto"], "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_registry_is_told_the_jobs_own_token() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    container:
      image: longshore/ubuntu:dev
      credentials: {username: me, password: '${{ secrets.GITHUB_TOKEN }}'}
    steps:
      - run: echo in
",
    );
    let Some(outcome) = run(with_token(job)).await else { return };
    assert_eq!(outcome.lines(), ["in"], "{}\n{:?}", outcome.notices(), outcome.report.reason);
    assert!(outcome.notices().contains("container.credentials: the job's own token opens no registry"));
}
