//! Liveness, readiness and metrics: the admin listener of both programs.

use crate::http::{Reply, reply};
use crate::postgres::Pool;
use hyper::Method;
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Open connections of an admin listener. A few would do; with so many a flood takes its time to push out one that is being answered,
/// and the usual limit of 1,024 open files leaves as many for the work.
pub const CONNECTIONS: usize = 512;

/// What a program still misses before it can do its work; empty = ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Not ready until each of these has reported for the first time.
    #[must_use]
    pub fn waiting_for(names: &[&'static str]) -> Readiness {
        let missing = names.iter().map(|name| (*name, format!("{name}: not looked at yet"))).collect();
        Readiness { missing: Arc::new(Mutex::new(missing)) }
    }

    /// Reports on one thing. The first report of a change is logged, repeats are not.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Ok(()) => {
                if missing.remove(name).is_some() {
                    tracing::info!("{name}: ready");
                }
            }
            Err(problem) => {
                if missing.get(name) != Some(&problem) {
                    tracing::warn!("not ready: {problem}");
                    missing.insert(name, problem);
                }
            }
        }
    }

    /// All problems, one per line; empty when ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Between two rounds of the metrics registry's own housekeeping.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of every histogram whose name ends in `_seconds`: from a commit on a fast disk to a slow language model.
const SECONDS_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Of every histogram that counts rows or messages of a batch.
const SIZE_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The path of the metrics.
pub const METRICS_PATH: &str = "/metrics";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// In the buckets of its unit, which its name ends in.
    Histogram,
}

/// A metric: what it is, its name, its help.
#[derive(Debug, Clone, Copy)]
pub struct Metric(pub Kind, pub &'static str, pub &'static str);

/// Installs the process-wide metrics registry and describes what will be in it. Handles that were made before count nothing. Without
/// a registry (a second call in a test process) metrics are not kept.
#[must_use]
pub fn install_metrics(metrics: &[Metric]) -> Option<PrometheusHandle> {
    let of = |suffix: &str| Matcher::Suffix(suffix.into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(of("_seconds"), &SECONDS_BUCKETS).ok()?;
    let builder = builder.set_buckets_for_metric(of("_rows"), &SIZE_BUCKETS).ok()?;
    let builder = builder.set_buckets_for_metric(of("_messages"), &SIZE_BUCKETS).ok()?;
    let handle = builder.install_recorder().ok()?;
    for Metric(kind, name, help) in metrics {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
    Some(handle)
}

/// Tells how a pool is used, by its gauges: connections by state, their limit, and who waits for one.
pub fn measure_pool(pool: &Pool, [connections, limit, waiting]: [&'static str; 3]) {
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let float = |count: usize| count as f64;
    let status = pool.status();
    let idle = status.available.min(status.size);
    metrics::gauge!(connections, "state" => "in_use").set(float(status.size - idle));
    metrics::gauge!(connections, "state" => "idle").set(float(idle));
    metrics::gauge!(limit).set(float(status.max_size));
    metrics::gauge!(waiting).set(float(status.waiting));
}

/// Without it the samples of histograms would pile up while nobody asks for the metrics. Until the token is cancelled.
pub async fn keep_metrics(metrics: Option<PrometheusHandle>, end: CancellationToken) {
    let Some(metrics) = metrics else { return };
    let keep = async {
        loop {
            sleep(UPKEEP_INTERVAL).await;
            metrics.run_upkeep();
        }
    };
    end.run_until_cancelled(keep).await;
}

/// Answers /livez and /readyz; None for every other path.
#[must_use]
pub fn health(method: &Method, path: &str, readiness: &Readiness) -> Option<Reply> {
    if !matches!(path, "/livez" | "/readyz") {
        return None;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = reply(405, "text/plain", "only GET and HEAD\n");
        refused
            .headers_mut()
            .insert(hyper::header::ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Some(refused);
    }
    // livez never looks at a database: a restart does not mend one.
    let problems = if path == "/livez" { Vec::new() } else { readiness.problems() };
    Some(match problems.as_slice() {
        [] => reply(200, "text/plain; charset=utf-8", "ok\n"),
        problems => reply(503, "text/plain; charset=utf-8", problems.join("\n") + "\n"),
    })
}

/// Answers the admin listener: /livez, /readyz, /metrics.
#[must_use]
pub fn answer(
    method: &Method,
    path: &str,
    readiness: &Readiness,
    metrics: Option<&PrometheusHandle>,
) -> Reply {
    if let Some(reply) = health(method, path, readiness) {
        return reply;
    }
    match (path, metrics) {
        (METRICS_PATH, Some(metrics)) => reply(200, "text/plain; version=0.0.4", metrics.render()),
        _ => reply(404, "text/plain", "this listener serves /livez, /readyz and /metrics\n"),
    }
}
