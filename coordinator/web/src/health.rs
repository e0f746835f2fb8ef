//! What other machines ask about this one: whether it lives, whether it is ready, and its numbers.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Refusal, Web};

/// OpenMetrics 1.0, as Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok"
}

/// 200 while events are taken in and results go out, else 503; one reason a line. A lost relay is a reason, but no
/// failure, as long as another one is there.
pub(super) async fn ready(State(web): State<Web>) -> Response {
    let readiness = web.control.readiness().await;
    let status = if readiness.failures.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let first = if readiness.failures.is_empty() { "ready" } else { "not ready" };
    let lines: Vec<&str> = std::iter::once(first)
        .chain(readiness.failures.iter().chain(&readiness.warnings).map(String::as_str))
        .collect();
    (status, lines.join("\n") + "\n").into_response()
}

/// Metrics for Prometheus.
pub(super) async fn metrics(State(web): State<Web>) -> Result<Response, Refusal> {
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], web.metrics.render().await?).into_response())
}
