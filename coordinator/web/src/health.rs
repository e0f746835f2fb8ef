//! Liveness, readiness and metrics, for other machines.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Refusal, Web};

/// Content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok"
}

/// 200 while events are received and results are sent, else 503; one reason a line. A lost relay is listed, but is no
/// failure while another one is connected.
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
