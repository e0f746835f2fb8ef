//! Spans as a collector gets them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use longshore_tests::harness::{
    pool::Pool,
    world::{Relay, World},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

const PATH: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str = "name: CI\non: workflow_dispatch\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - name: say hi\n        run: echo hi\n";

/// Keeps every span that comes in.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_event_is_one_tree_of_spans_through_coordinator_and_worker() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path()).unwrap();
    let exported = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = exported.iter().fold(pool, |pool, (name, value)| pool.with(name, value));
    let _coordinator = pool.coordinator().unwrap();
    let _worker = pool.worker(&[exported[0], exported[1], ("LONGSHORE_SANDBOX", "host")]).unwrap();
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await.unwrap();
    let (run, job) = world.send(&world.press(pool.pubkey, PATH)).await.unwrap();
    world.listener.end(&run, &job, Duration::from_secs(120)).await.unwrap();

    let expected = [
        ("CI", None),
        ("plan", Some("CI")),
        ("queued build", Some("CI")),
        ("build", Some("CI")),
        ("attempt 1", Some("build")),
        ("prepare", Some("attempt 1")),
        ("say hi", Some("attempt 1")),
    ];
    let parents = || {
        let spans = collector.0.lock();
        let names: HashMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span.name.clone())).collect();
        let parent = |span: &Span| (span.name.clone(), names.get(&span.parent_span_id).cloned());
        spans.iter().map(parent).collect::<HashMap<_, _>>()
    };
    let is_there = |(name, parent): &(&str, Option<&str>)| parents().get(*name).map(Option::as_deref) == Some(*parent);
    let whole = async {
        while !expected.iter().all(is_there) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), whole).await.unwrap_or_else(|_| panic!("{:?}", parents()));
    let spans = collector.0.lock();
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id), "one trace");
    assert!(spans.iter().all(|span| span.end_time_unix_nano >= span.start_time_unix_nano));
}
