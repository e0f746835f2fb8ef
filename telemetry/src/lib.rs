//! Spans of job events, exported by OTLP (OpenTelemetry) over gRPC.
//!
//! Trace and span ids are derived from the ids of run, job and attempt, so coordinators and workers contribute to one
//! trace without exchanging ids, also across restarts. A span is created when it ends.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor},
};
use sha2::{Digest, Sha256};

/// Variables with the endpoint, by the OpenTelemetry specification, e.g. `http://collector:4317`.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// `service.name`, unless `OTEL_SERVICE_NAME` is set.
const SERVICE: &str = "longshore";

static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

/// What a span is about; its id is derived from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKey<'a> {
    /// The whole run: the root of its trace.
    Run,
    /// A part of the run, e.g. `plan`.
    RunPart(&'a str),
    /// A job, by its key.
    Job(&'a str),
    /// An attempt of a job, from 1.
    Attempt(&'a str, u32),
    /// A part of an attempt, e.g. a step.
    AttemptPart(&'a str, u32, &'a str),
}

impl SpanKey<'_> {
    fn id(self, run: &str) -> SpanId {
        let text = match self {
            Self::Run => "run".to_owned(),
            Self::RunPart(part) => format!("part {part}"),
            Self::Job(job) => format!("job {job}"),
            Self::Attempt(job, number) => format!("attempt {number} {job}"),
            Self::AttemptPart(job, number, part) => format!("part {number} {}:{job} {part}", job.len()),
        };
        let hash: [u8; 32] = Sha256::new().chain_update(run).chain_update([0]).chain_update(text).finalize().into();
        SpanId::from_bytes(first(&hash))
    }

    fn parent(self) -> Option<Self> {
        match self {
            Self::Run => None,
            Self::RunPart(_) | Self::Job(_) => Some(Self::Run),
            Self::Attempt(job, _) => Some(Self::Job(job)),
            Self::AttemptPart(job, number, _) => Some(Self::Attempt(job, number)),
        }
    }
}

/// A span that ended.
#[derive(Debug, Clone)]
pub struct Span(SpanData);

impl Span {
    /// `start_ms` and `end_ms` are milliseconds since the Unix epoch; `run` is a run's id.
    pub fn new(run: &str, key: SpanKey<'_>, name: impl Into<String>, (start_ms, end_ms): (u64, u64)) -> Self {
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let (trace, id) = (trace_id(run), key.id(run));
        Self(SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: key.parent().map_or(SpanId::INVALID, |parent| parent.id(run)),
            parent_span_is_remote: false,
            span_kind: if key == SpanKey::Run { SpanKind::Server } else { SpanKind::Internal },
            name: name.into().into(),
            start_time: at(start_ms),
            end_time: at(end_ms.max(start_ms)),
            attributes: vec![KeyValue::new("longshore.run", run.to_owned())],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder(SERVICE).build(),
        })
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.attributes.push(KeyValue::new(name, value.into()));
        self
    }

    /// Marks it as failed.
    #[must_use]
    pub fn failed(mut self, reason: impl Into<String>) -> Self {
        self.0.status = Status::error(reason.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its duration in milliseconds.
    pub fn duration_ms(&self) -> u128 {
        self.0.end_time.duration_since(self.0.start_time).unwrap_or_default().as_millis()
    }
}

/// Starts the export for the whole process, if an endpoint is set. Without one, spans cost nothing.
///
/// # Errors
/// The endpoint is not a URL. Call it within a Tokio runtime.
pub fn start() -> anyhow::Result<()> {
    if ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none()) {
        return Ok(());
    }
    let exporter = SpanExporter::builder().with_tonic().build();
    let exporter = exporter.with_context(|| format!("{}: write it as http://HOST:4317", ENDPOINTS[0]))?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    let resource = Resource::builder();
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => resource.build(),
        None => resource.with_service_name(SERVICE).build(),
    };
    processor.set_resource(&resource);
    // A second start finds the first one exporting.
    let _ = PROCESSOR.set(processor);
    Ok(())
}

/// Whether spans are exported.
pub fn is_exporting() -> bool {
    PROCESSOR.get().is_some()
}

/// Exports a span. It is dropped if too many wait.
pub fn emit(span: Span) {
    if let Some(processor) = PROCESSOR.get() {
        processor.on_end(span.0);
    }
}

/// Sends the spans that still wait. Blocks for some seconds at most.
pub fn stop() {
    if let Some(processor) = PROCESSOR.get() {
        // The collector does not answer, or the export was stopped before: nothing can be done at the end.
        let _ = processor.shutdown_with_timeout(Duration::from_secs(3));
    }
}

/// A run's id is a UUID, which has as many bits as a trace id. Any other text is hashed.
fn trace_id(run: &str) -> TraceId {
    match uuid::Uuid::parse_str(run) {
        Ok(id) => TraceId::from_bytes(*id.as_bytes()),
        Err(_) => {
            let hash: [u8; 32] = Sha256::digest(run).into();
            TraceId::from_bytes(first(&hash))
        }
    }
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|index| hash.get(index).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0198c0de-0000-7000-8000-000000000001";

    #[test]
    fn spans_of_both_roles_make_one_tree_by_their_keys_alone() {
        let span = |key| Span::new(RUN, key, "x", (1, 2)).0;
        let (run, job) = (span(SpanKey::Run), span(SpanKey::Job("build")));
        let (attempt, step) = (span(SpanKey::Attempt("build", 1)), span(SpanKey::AttemptPart("build", 1, "step 0")));
        assert_eq!(run.span_context.trace_id().to_string(), RUN.replace('-', ""));
        assert_eq!(run.parent_span_id, SpanId::INVALID);
        for (child, parent) in [(&job, &run), (&attempt, &job), (&step, &attempt)] {
            assert_eq!(child.parent_span_id, parent.span_context.span_id());
            assert_eq!(child.span_context.trace_id(), parent.span_context.trace_id());
        }
        let other = span(SpanKey::Attempt("build", 2));
        assert_ne!(attempt.span_context.span_id(), other.span_context.span_id());
    }
}
