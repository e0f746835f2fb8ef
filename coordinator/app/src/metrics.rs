//! What Prometheus reads at `/metrics`: counted and timed where it happens ([`runs`]), or sampled when it is asked for.
//!
//! Names follow Prometheus' conventions: base units, `_total` for counters. `docs/operations.md` lists all of them.

pub(crate) mod runs;
mod samples;

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Registry};

pub(crate) use samples::SampleInputs;
use samples::Samples;

/// Prefix of every name.
const PREFIX: &str = "longshore";

/// A registry that subsystems put their metrics into.
pub(crate) fn registry() -> Registry {
    Registry::with_prefix(PREFIX)
}

/// Renders all metrics.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    samples: Samples,
}

impl Metrics {
    /// Takes over a registry that every subsystem has put its metrics into.
    pub(crate) fn new(mut registry: Registry, sources: SampleInputs) -> Self {
        let samples = Samples::new(&mut registry, sources);
        Self { registry: Mutex::new(registry), samples }
    }
}

impl web::Metrics for Metrics {
    fn render(&self) -> BoxFuture<'_, anyhow::Result<String>> {
        async {
            self.samples.take().await?;
            let mut text = String::new();
            encode(&mut text, &self.registry.lock())?;
            Ok(text)
        }
        .boxed()
    }
}
