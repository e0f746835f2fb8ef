//! Workers that are not who they say, or say what is not theirs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::worker::{
    Accept, ActionsApiOpen, ActionsApiRequest, ArchiveRequest, Attempt, Begun, FromWorker, Job, LogChunk, LogOpen,
    LogRequest, Register, ResolveRequest, Result as Report, SourceRequest, actions_api_request::Message,
    bulk_client::BulkClient, from_worker, log_request, to_worker, workers_client::WorkersClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use workflow::plan::Reason;

use crate::{
    pool::{LOG_BYTES, Pool, Terms, long_leases, terms},
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

/// A report that no honest worker makes ends its job with the reason, and the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_report_that_is_too_long_is_refused_and_not_asked_for_again() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = worker.take().await.attempt.unwrap();
    for size in [proto::REPORT_LIMIT + 1, proto::MESSAGE_LIMIT + 1] {
        let report = Report { attempt: Some(attempt.clone()), report: vec![b'x'; size].into() };
        worker.say(from_worker::Message::Result(report)).await;
        assert_eq!(worker.stopped().await, attempt);
    }
    let report = pool.finished("build").await;
    assert!(matches!(&report.reason, Some(Reason::Invalid(why)) if why.contains("bytes")), "{:?}", report.reason);
    pool.queue("next", &["ubuntu-latest"]);
    assert_eq!(worker.take().await.attempt.unwrap().job, "next");
}

/// Jobs before it may hand it more than an order holds: it fails with the reason, once, and nobody's session ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_order_is_too_long_fails_with_the_reason() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("huge", &["ubuntu-latest"]);
    let offer = worker.offer().await;
    worker.say(from_worker::Message::Accept(Accept { offer })).await;
    let report = pool.finished("huge").await;
    assert!(
        matches!(&report.reason, Some(Reason::Invalid(why)) if why.contains("can't be sent")),
        "{:?}",
        report.reason
    );
    assert_eq!(pool.course("huge").lost.len(), 0);
    pool.queue("next", &["ubuntu-latest"]);
    assert_eq!(worker.take().await.attempt.unwrap().job, "next");
}

/// What a message beyond that is about is not known: it is not sent for ever all the same.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_message_that_cannot_be_read_costs_its_worker_what_it_has() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = worker.take().await.attempt.unwrap();
    let report = Report { attempt: Some(attempt.clone()), report: vec![b'x'; 3 * proto::MESSAGE_LIMIT].into() };
    worker.say(from_worker::Message::Result(report)).await;
    pool.until("build", |course| course.lost.len() == 1).await;
    // It comes back with the attempt, as it would for ever.
    let again = Register { identity: public(&key(1)), finished: vec![attempt.clone()], ..raw::register() };
    let mut worker = Raw::register(&pool, &key(1), again).await.unwrap();
    assert_eq!(worker.stopped().await, attempt);
    pool.queue("next", &["ubuntu-latest"]);
    assert_eq!(worker.take().await.attempt.unwrap().job, "next");
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

/// A lease opens the mirror of its run's repository, and those that its names were resolved to; no other.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_a_lease_opens_no_mirror_that_its_job_did_not_name() {
    let pool = Pool::start(long_leases()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.queue("other", &["ubuntu-latest"]);
    let (job, other) = (worker.take().await, worker.take().await);
    let resolve = |job: &Job| ResolveRequest {
        attempt: job.attempt.clone(),
        token: job.token.clone(),
        repository: "acme/tool".into(),
        ..ResolveRequest::default()
    };
    let found = worker.bulk.resolve(resolve(&job)).await.unwrap().into_inner();
    let of_other = worker.bulk.resolve(resolve(&other)).await.unwrap().into_inner();
    assert_ne!(found.grant, of_other.grant);
    let cases = [
        ("30617:owner:repo", Bytes::new(), true),
        ("key", found.grant.clone(), true),
        ("key", Bytes::new(), false),
        ("key", of_other.grant, false),
        ("30617:other:private", found.grant.clone(), false),
        ("30617:other:private", Bytes::new(), false),
        ("tree https://git.example/a/b", found.grant, false),
    ];
    for (repository, grant, may) in cases {
        let (attempt, token, commit) = (job.attempt.clone(), job.token.clone(), "c".repeat(40));
        let source = SourceRequest {
            attempt: attempt.clone(),
            token: token.clone(),
            commit: commit.clone(),
            repository: repository.into(),
            grant: grant.clone(),
            ..SourceRequest::default()
        };
        let archive = ArchiveRequest { attempt, token, repository: repository.into(), commit, grant };
        let answers = [
            worker.bulk.source(source).await.map(drop).map_err(|status| status.code()),
            worker.bulk.archive(archive).await.map(drop).map_err(|status| status.code()),
        ];
        let expected = if may { Ok(()) } else { Err(Code::PermissionDenied) };
        assert_eq!(answers, [expected, expected], "{repository}");
    }
}

/// Who never proves to be a worker is hung up on, whatever it sends; a worker stays.
#[tokio::test(flavor = "multi_thread")]
async fn attack_59_a_connection_on_which_no_worker_proves_itself_is_closed_in_time() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    let begun = Instant::now();
    let port = pool.port;
    let mut silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The handshake of TLS alone, and an HTTP/2 connection on which no call comes.
    let idle = raw::channel(port, &pool.keys.ca).await;
    let mut loud = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let flood = async {
        // The first bytes of a ClientHello that never ends.
        let _ = loud.write_all(&[0x16, 3, 1, 0x40, 0]).await;
        while loud.write_all(&[0; 1024]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), flood).await.expect("what sends without end is hung up on");
    let closed = tokio::time::timeout(Duration::from_secs(60), silent.read(&mut [0])).await;
    assert!(matches!(closed.expect("it is closed"), Ok(0) | Err(_)));
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    drop(idle);
    worker.renew(&[]).await;
    worker.hear_until(|message| matches!(message, to_worker::Message::Renewed(_)).then_some(())).await;
}

/// A worker whose log has no end, or who says that it does everybody's work.
#[tokio::test(flavor = "multi_thread")]
async fn attack_54_what_a_worker_says_of_sizes_and_slots_has_bounds() {
    let pool = Pool::start(terms()).await;
    let claim = |register: Register| {
        pool.enrol(&public(&key(1)));
        let register = Register { identity: public(&key(1)), ..register };
        async { Raw::register(&pool, &key(1), register).await.err().expect("it is refused") }
    };
    let status = claim(Register { slots: 9, ..raw::register() }).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("limits.worker_slots"), "{status}");
    let status = claim(Register { labels: vec!["x".repeat(257)], ..raw::register() }).await;
    assert!(status.message().contains("at most 64 labels"), "{status}");
    let status = claim(Register { labels: vec!["x".into(); 65], ..raw::register() }).await;
    assert!(status.message().contains("at most 64 labels"), "{status}");

    let named = Register {
        identity: public(&key(1)),
        name: format!("one\u{1b}\n{}", "o".repeat(9999)),
        slots: 8,
        ..raw::register()
    };
    let mut worker = Raw::register(&pool, &key(1), named).await.unwrap();
    let row = &pool.dispatch.workers()[0];
    assert_eq!(row.name, format!("one{}", "o".repeat(61)));
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    let open = LogOpen { attempt: job.attempt, token: job.token };
    let (out, stream) = tokio::sync::mpsc::channel(2);
    out.send(LogRequest { message: Some(log_request::Message::Open(open)) }).await.unwrap();
    let beyond = LogChunk { offset: LOG_BYTES, data: Bytes::from_static(b"more") };
    out.send(LogRequest { message: Some(log_request::Message::Chunk(beyond)) }).await.unwrap();
    let mut acks = worker.bulk.logs(ReceiverStream::new(stream)).await.unwrap().into_inner();
    assert!(!acks.message().await.unwrap().unwrap().stop);
    let status = acks.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "the worker is not to try again");
    assert!(status.message().contains("limits.log_bytes"), "{status}");
}

/// Sessions that are opened on one connection and never say who they are.
#[tokio::test(flavor = "multi_thread")]
async fn attack_59_one_connection_begins_few_sessions_at_a_time() {
    let pool = Pool::start(terms()).await;
    let channel = raw::channel(pool.port, &pool.keys.ca).await;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..20 {
        let (out, stream) = tokio::sync::mpsc::channel::<FromWorker>(1);
        match WorkersClient::new(channel.clone()).session(ReceiverStream::new(stream)).await {
            Ok(session) => open.push((out, session)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (4, 16));
}

/// Calls that are opened on one connection and never show a token.
#[tokio::test(flavor = "multi_thread")]
async fn attack_59_one_connection_begins_few_calls_before_one_has_shown_its_token() {
    let pool = Pool::start(terms()).await;
    let channel = raw::channel(pool.port, &pool.keys.ca).await;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let (out, stream) = tokio::sync::mpsc::channel::<LogRequest>(1);
        match BulkClient::new(channel.clone()).logs(ReceiverStream::new(stream)).await {
            Ok(call) => open.push((out, call)),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (40, 20));
    drop(open);
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    let mut logs = Vec::new();
    for _ in 0..60 {
        let (out, stream) = tokio::sync::mpsc::channel::<LogRequest>(1);
        logs.push((out, worker.bulk.logs(ReceiverStream::new(stream)).await.unwrap()));
    }
    assert!(job.attempt.is_some(), "a worker has as many as it likes");
}

/// Attack 55: a worker is lost and another gets the job, with its secrets. The first can't be made to forget them, but
/// what it was given opens nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn attack_55_the_lease_of_a_lost_worker_opens_nothing_any_more() {
    let timeouts = config::LeaseTimeouts { lease_ms: 400, ..terms().timeouts };
    let pool = Pool::start(Terms { timeouts, ..terms() }).await;
    let mut lost = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = lost.take().await;
    let (attempt, token) = (job.attempt.clone().unwrap(), job.token.clone());
    let asked = ResolveRequest { attempt: job.attempt.clone(), token: token.clone(), ..ResolveRequest::default() };
    let grant = lost.bulk.resolve(asked.clone()).await.unwrap().into_inner().grant;
    pool.until("build", |course| !course.lost.is_empty()).await;

    let source = SourceRequest { attempt: job.attempt.clone(), token: token.clone(), ..SourceRequest::default() };
    assert_eq!(lost.bulk.source(source).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(lost.bulk.resolve(asked).await.unwrap_err().code(), Code::PermissionDenied);
    let archive = ArchiveRequest {
        attempt: job.attempt,
        token: token.clone(),
        repository: "key".into(),
        commit: "c".repeat(40),
        grant,
    };
    assert_eq!(lost.bulk.archive(archive).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(lost.open_log(&attempt, &token).await.stop);
    lost.report(&attempt).await;
    assert_eq!(lost.stopped().await, attempt);
    assert_eq!(pool.course("build").finished, 0);
}
