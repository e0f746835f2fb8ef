//! Workers that are not who they say, or say what is not theirs.

use std::time::Duration;

use proto::worker::{
    ActionsApiOpen, ActionsApiRequest, Attempt, Begun, Register, SourceRequest, actions_api_request::Message,
    from_worker, to_worker,
};
use tonic::Code;

use crate::{
    pool::{Pool, terms},
    raw::{self, Raw, key, public},
    script::Script,
};

/// Attack 53: second connect with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn attack_53_an_identity_has_one_session_and_the_older_one_is_fenced() {
    let pool = Pool::start(terms()).await;
    let mut old = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = old.take().await.attempt.unwrap();
    let mut new = Raw::join(&pool, 1).await;
    assert_eq!(old.ended().await.code(), Code::Aborted);
    pool.connected(1).await;
    // What the old one says now goes nowhere; the new one did not name the job, so it is lost.
    pool.until("build", |course| course.lost == ["worker raw came back without it"]).await;
    new.report(&attempt).await;
    assert_eq!(new.stopped().await, attempt);
    assert_eq!(pool.course("build").finished, 0);
}

/// Attack 53: who does not have the key is not let in; nor is an unknown identity without a token.
#[tokio::test(flavor = "multi_thread")]
async fn attack_53_nobody_joins_with_anothers_identity_or_an_old_token() {
    let pool = Pool::start(terms()).await;
    let as_known = Register { identity: public(&key(1)), ..raw::register() };
    pool.enrol(&public(&key(1)));
    let refused = |result: Result<Raw, tonic::Status>| result.err().expect("it is refused");

    let status = refused(Raw::register(&pool, &key(2), as_known).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");

    let unknown = |number: u8, token: &str| Register {
        identity: public(&key(number)),
        token: token.to_owned(),
        ..raw::register()
    };
    let status = refused(Raw::register(&pool, &key(2), unknown(2, "")).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains(&public(&key(2))) && status.message().contains("workers token"), "{status}");
    for wrong in ["nonsense", "aa.99999999999999.bb"] {
        let status = refused(Raw::register(&pool, &key(2), unknown(2, wrong)).await);
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert_eq!(
        refused(Raw::register(&pool, &key(2), unknown(2, &pool.dispatch.enrolment_token(1))).await).code(),
        Code::PermissionDenied
    );

    let token = pool.dispatch.enrolment_token(u64::MAX);
    let joined = Raw::register(&pool, &key(2), unknown(2, &token)).await.unwrap();
    drop(joined);
    let status = refused(Raw::register(&pool, &key(3), unknown(3, &token)).await);
    assert!(status.message().contains("used before"), "{status}");
    // Enrolled is enrolled: the token is not asked for again.
    Raw::register(&pool, &key(2), unknown(2, "")).await.unwrap();
}

/// Attack 54: a worker reports on a job of another, and on an attempt that is over.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_job_of_another_worker_and_an_old_attempt_are_refused() {
    let pool = Pool::start(terms()).await;
    let holder = pool.worker("holder", Script::Wait).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    pool.until_logged("build", 1, "waiting\n").await;
    let mut thief = Raw::join(&pool, 1).await;

    let of = |attempt: u32| Attempt { run: "run".into(), job: "build".into(), attempt };
    for attempt in [of(1), of(0), of(2)] {
        thief.report(&attempt).await;
        assert_eq!(thief.stopped().await, attempt);
        thief.say(from_worker::Message::Begun(Begun { attempt: Some(attempt.clone()) })).await;
        assert_eq!(thief.stopped().await, attempt);
        thief.renew(std::slice::from_ref(&attempt)).await;
        assert_eq!(thief.stopped().await, attempt);
        for token in ["", "00", &"ab".repeat(32)] {
            assert!(thief.open_log(&attempt, token).await.stop);
            let asked = SourceRequest { attempt: Some(attempt.clone()), token: token.into(), ..Default::default() };
            assert_eq!(thief.bulk.source(asked).await.unwrap_err().code(), Code::PermissionDenied);
        }
    }
    let course = pool.course("build");
    assert_eq!((course.finished, course.begun, course.lost.len()), (0, 1, 0));
    assert_eq!(pool.log("build", 1), "waiting\n");
    assert_eq!(pool.dispatch.workers().len(), 2);
    pool.cancel("build");
    pool.finished("build").await;
    holder.drain(Duration::from_secs(5)).await;
}

/// The token of one's own attempt opens that attempt's log and repository, and ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_token_serves_its_own_attempt_for_as_long_as_it_is_held() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    let attempt = job.attempt.clone().unwrap();
    let request = SourceRequest { attempt: job.attempt, token: job.token.clone(), ..SourceRequest::default() };
    assert!(!worker.open_log(&attempt, &job.token).await.stop);
    let mut parts = worker.bulk.source(request.clone()).await.unwrap().into_inner();
    let (mut bytes, mut first) = (0, None);
    while let Some(part) = parts.message().await.unwrap() {
        assert!(part.data.len() <= 256 * 1024);
        bytes += part.data.len();
        first.get_or_insert(part.data);
    }
    assert_eq!(first.unwrap(), "30617:owner:repo", "the repository is the attempt's, not the caller's choice");
    assert!(bytes > 600 * 1024);

    worker.report(&attempt).await;
    pool.finished("build").await;
    worker.hear_until(|m| matches!(m, proto::worker::to_worker::Message::Accepted(_)).then_some(())).await;
    assert!(worker.open_log(&attempt, &job.token).await.stop);
    assert_eq!(worker.bulk.source(request).await.unwrap_err().code(), Code::PermissionDenied);
    worker.report(&attempt).await;
    assert_eq!(worker.stopped().await, attempt);
    assert_eq!(pool.course("build").finished, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_a_job_is_carried_for_its_own_attempt_alone() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    assert_eq!((job.runtime_token.as_str(), job.id_token), ("runtime canary", false));
    let attempt = job.attempt.unwrap();
    let asking = |attempt: &Attempt, token: &str| {
        let open = ActionsApiOpen { attempt: Some(attempt.clone()), token: token.to_owned() };
        let messages = [Message::Open(open), Message::Data("ask".into())];
        tokio_stream::iter(messages.map(|message| ActionsApiRequest { message: Some(message) }))
    };
    let mut answer = worker.bulk.actions_api(asking(&attempt, &job.token)).await.unwrap().into_inner();
    let mut said = Vec::new();
    while let Some(part) = answer.message().await.unwrap() {
        said.extend_from_slice(&part.data);
    }
    assert_eq!(String::from_utf8(said).unwrap(), "build 1 true: ask");

    let other = Attempt { attempt: 2, ..attempt.clone() };
    for (attempt, token) in [(&attempt, "wrong"), (&other, job.token.as_str())] {
        let refused = worker.bulk.actions_api(asking(attempt, token)).await.expect_err("it is refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    worker.report(&attempt).await;
    worker.hear_until(|message| matches!(message, to_worker::Message::Accepted(_)).then_some(())).await;
    let refused = worker.bulk.actions_api(asking(&attempt, &job.token)).await.expect_err("the attempt is over");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
