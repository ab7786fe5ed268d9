//! What ingest counts, and the line that each request leaves in the log.
//!
//! Every metric stands in [`METRICS`]. Labels are words of this program, never of a request; nothing of a body, an address or a key
//! that a client has chosen goes into a label or a line.

use crate::{
    access::Access,
    endpoint::{DEBT_UPDATE_SOURCE, Endpoint},
    problem::Problem,
    request_trace::RequestTrace,
    source::{Source, key_used},
};
use metrics::{counter, gauge, histogram};
use shared::{
    admin::{Kind, Metric, Readiness},
    bearer::Tokens,
    message::{EmailId, Operation, Revision},
};
use std::time::Duration;

/// Every metric, with its help.
pub const METRICS: &[Metric] = &[
    Metric(
        Kind::Counter,
        "ingest_requests_total",
        "Requests by source and outcome: a 200's status or a problem's name",
    ),
    Metric(Kind::Histogram, "ingest_request_duration_seconds", "From a request's head to its answer"),
    Metric(Kind::Counter, "ingest_signature_failures_total", "Requests refused for their signature or token"),
    Metric(
        Kind::Counter,
        "ingest_key_used_total",
        "Requests by the place of the secret that signed them, from 1",
    ),
    Metric(Kind::Counter, "ingest_duplicates_total", "Requests that had been stored before"),
    Metric(
        Kind::Counter,
        "ingest_fingerprint_mismatches_total",
        "Requests whose key belongs to other content",
    ),
    Metric(Kind::Counter, "ingest_shed_total", "Requests refused for want of room, by what was full"),
    Metric(Kind::Histogram, "ingest_batch_rows", "Requests that are committed together"),
    Metric(
        Kind::Histogram,
        "ingest_queue_duration_seconds",
        "How long the first request of a batch has waited for it",
    ),
    Metric(Kind::Histogram, "ingest_commit_duration_seconds", "One statement with its commit"),
    Metric(
        Kind::Counter,
        "ingest_batch_splits_total",
        "Batches halved because the database refused one of their rows",
    ),
    Metric(
        Kind::Counter,
        "ingest_committed_alone_total",
        "Requests that could not be stored with the others",
    ),
    Metric(Kind::Gauge, "ingest_queue_depth", "Requests that wait for their commit or are in one"),
    Metric(Kind::Gauge, "ingest_queue_bytes", "Bytes of all bodies in memory, being read or waiting"),
    Metric(Kind::Gauge, "ingest_open_connections", "Open connections of the public listener"),
    Metric(
        Kind::Counter,
        "ingest_closed_connections_total",
        "Connections closed for new ones because a listener was full, by listener",
    ),
    Metric(Kind::Gauge, "ingest_pool_connections", "Connections to Postgres by state"),
    Metric(Kind::Gauge, "ingest_pool_connections_limit", "Connections to Postgres, at most"),
    Metric(Kind::Gauge, "ingest_pool_waiting", "Who waits for a connection to Postgres now"),
    Metric(Kind::Gauge, "ingest_ready", "1 if /readyz answers 200"),
    Metric(Kind::Gauge, "ingest_build_info", "1, with the version of the program"),
];

/// The gauge of [`shared::http::Limits`].
pub const OPEN_CONNECTIONS: &str = "ingest_open_connections";
/// Its counter.
pub const CLOSED_CONNECTIONS: &str = "ingest_closed_connections_total";

/// What there was no room in.
#[derive(Debug, Clone, Copy)]
pub enum Full {
    /// The queue of the commits.
    Queue,
    /// The budget of bytes of all bodies.
    Bodies,
    /// The pool of connections.
    Pool,
}

impl Full {
    const ALL: [Full; 3] = [Full::Queue, Full::Bodies, Full::Pool];

    const fn name(self) -> &'static str {
        match self {
            Full::Queue => "queue",
            Full::Bodies => "bodies",
            Full::Pool => "pool",
        }
    }

    /// Counts a request that finds it full, and says so to its sender.
    #[must_use]
    pub fn shed(self) -> Problem {
        self.shed_more(1);
        Problem::Overloaded
    }

    /// Counts requests that share the fate of one.
    pub fn shed_more(self, requests: u64) {
        counter!("ingest_shed_total", "reason" => self.name()).increment(requests);
    }
}

/// How a request came out.
#[derive(Debug)]
pub struct Ended<'a> {
    /// [`Endpoint::label`], or `none`.
    pub source: &'static str,
    /// The status of a 200, or the problem's name.
    pub outcome: &'static str,
    /// Of HTTP.
    pub status: u16,
    /// The mail that has the request's content, and its first message's operation.
    pub stored: Option<(EmailId, Operation)>,
    /// Its names.
    pub trace: &'a RequestTrace,
    /// Since its head had been read.
    pub took: Duration,
}

/// Counts a request and logs it: what may need somebody's attention as a warning, all others for who wants to see each. A flood
/// that is shed is counted, and not written down line by line.
pub fn request(ended: &Ended<'_>) {
    let Ended { source, outcome, status, stored, trace, took } = *ended;
    counter!("ingest_requests_total", "source" => source, "outcome" => outcome).increment(1);
    histogram!("ingest_request_duration_seconds", "source" => source).record(took);
    if let Some(reason) = signature_failure(outcome) {
        counter!("ingest_signature_failures_total", "source" => source, "reason" => reason).increment(1);
    }
    if outcome == "duplicate" {
        counter!("ingest_duplicates_total", "source" => source).increment(1);
    } else if outcome == Problem::KeyReused.name() {
        counter!("ingest_fingerprint_mismatches_total", "source" => source).increment(1);
    }
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                request_id = trace.request_id,
                trace_id = %trace.trace_id(),
                source,
                outcome,
                status,
                email_id = stored.map(|(email_id, _)| email_id),
                operation = stored.map(|(_, operation)| operation.name()),
                saga_step = stored.map(|(_, operation)| operation.name()),
                // Of the message: the request's own may be a client's choice.
                idempotency_key = stored.map(|(email_id, operation)| operation.key(email_id, Revision::FIRST)),
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "request"
            )
        };
    }
    if status >= 500 && outcome != Problem::Overloaded.name() {
        log!(warn);
    } else {
        log!(debug);
    }
}

/// Why the sender was not proven, if that is the outcome.
fn signature_failure(outcome: &str) -> Option<&'static str> {
    SIGNATURE_FAILURES.iter().find(|(problem, _)| problem.name() == outcome).map(|(_, reason)| *reason)
}

const SIGNATURE_FAILURES: [(Problem, &str); 4] = [
    (Problem::SignatureMissing, "missing"),
    (Problem::SignatureInvalid, "wrong"),
    (Problem::SignatureStale, "stale"),
    (Problem::TokenInvalid, "token"),
];

/// Begins every counter whose labels are known at zero: a rate over a counter that appears with its first event misses that event.
pub fn begin(access: &Access) {
    gauge!("ingest_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    for full in Full::ALL {
        counter!("ingest_shed_total", "reason" => full.name()).absolute(0);
    }
    counter!("ingest_batch_splits_total").absolute(0);
    counter!("ingest_committed_alone_total").absolute(0);
    let keys = Source::ALL.map(|source| (source.name(), access.verifiers.keys(source)));
    let tokens = access.tokens.as_ref().map_or(0, Tokens::count);
    for (source, count) in keys.into_iter().chain([(DEBT_UPDATE_SOURCE, tokens)]) {
        (0..count).for_each(|place| key_used(source, place, 0));
    }
    let webhooks = Source::ALL.into_iter().map(Endpoint::Webhook);
    for endpoint in webhooks.chain([Endpoint::DebtUpdates]).filter(|endpoint| access.switched_on(*endpoint)) {
        let source = endpoint.label();
        let problems = Problem::ALL.map(|problem| problem.name());
        for outcome in ["accepted", "duplicate"].into_iter().chain(problems) {
            counter!("ingest_requests_total", "source" => source, "outcome" => outcome).absolute(0);
        }
        counter!("ingest_duplicates_total", "source" => source).absolute(0);
        counter!("ingest_fingerprint_mismatches_total", "source" => source).absolute(0);
        let is_signed = source != DEBT_UPDATE_SOURCE;
        for (_, reason) in SIGNATURE_FAILURES.iter().filter(|(_, reason)| is_signed == (*reason != "token")) {
            counter!("ingest_signature_failures_total", "source" => source, "reason" => *reason).absolute(0);
        }
    }
}

/// Reads what is only looked at when somebody asks for the metrics.
pub fn measure(readiness: &Readiness, queue_depth: usize, queue_bytes: usize) {
    let set = |name: &'static str, value: usize| {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        gauge!(name).set(value as f64);
    };
    set("ingest_queue_depth", queue_depth);
    set("ingest_queue_bytes", queue_bytes);
    set("ingest_ready", usize::from(readiness.problems().is_empty()));
}
