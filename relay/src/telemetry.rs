//! What a running relay measures.
//!
//! Every metric stands in [`METRICS`]. Labels are words of this program: operations, outcomes, states; never a client, a creditor or a
//! message. What is only looked at when somebody asks is read in [`measure`].

use crate::{
    board::LaneState,
    context::Context,
    extraction::Extractor,
    outcome::{FailureClass, Outcome},
};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use shared::{
    admin::{Kind, Metric, Readiness, measure_pool},
    message::Operation,
};
use std::time::Duration;

/// Every metric, with its help.
pub const METRICS: &[Metric] = &[
    Metric(
        Kind::Gauge,
        "relay_lag_seconds",
        "Age of the oldest message that is due, by operation; of all relays, every 15 s",
    ),
    Metric(
        Kind::Gauge,
        "relay_backlog",
        "Messages that have not ended well, by operation and state; of all relays, every 15 s",
    ),
    Metric(Kind::Gauge, "relay_paused", "1 while somebody has paused the operation"),
    Metric(Kind::Counter, "relay_claimed_messages_total", "Messages claimed"),
    Metric(Kind::Counter, "relay_messages_total", "Claimed messages by what they came to"),
    Metric(Kind::Histogram, "relay_claim_batch_messages", "Messages of one claim that found any"),
    Metric(Kind::Histogram, "relay_claim_duration_seconds", "One claim that found messages"),
    Metric(Kind::Histogram, "relay_apply_duration_seconds", "The effect of one batch"),
    Metric(
        Kind::Histogram,
        "relay_finish_duration_seconds",
        "The commit of what one batch came to, with its retries",
    ),
    Metric(Kind::Gauge, "relay_in_flight_messages", "Messages that are claimed here and not finished"),
    Metric(
        Kind::Gauge,
        "relay_breaker_open",
        "1 while the lane claims nothing because what it works with is away, by why",
    ),
    Metric(
        Kind::Counter,
        "relay_closed_connections_total",
        "Connections closed for new ones because a listener was full, by listener",
    ),
    Metric(Kind::Gauge, "relay_pool_connections", "Connections to Postgres by state"),
    Metric(Kind::Gauge, "relay_pool_connections_limit", "Connections to Postgres, at most"),
    Metric(Kind::Gauge, "relay_pool_waiting", "Who waits for a connection to Postgres now"),
    Metric(
        Kind::Counter,
        "relay_reconcile_runs_total",
        "Reconciliations of this relay by scope and how they ended",
    ),
    Metric(Kind::Counter, "relay_reconcile_repairs_total", "Repairs that were enqueued"),
    Metric(Kind::Counter, "relay_reconcile_failed_repairs_total", "Repairs that could not be enqueued"),
    Metric(
        Kind::Gauge,
        "relay_reconcile_drift",
        "Entries that differ from the ledger, as of this relay's last whole comparison",
    ),
    Metric(
        Kind::Gauge,
        "relay_reconcile_last_completed_timestamp_seconds",
        "When this relay's last whole comparison ended",
    ),
    Metric(Kind::Counter, "relay_extractor_requests_total", "Calls to a language model"),
    Metric(Kind::Counter, "relay_extractor_tokens_total", "Tokens that those calls have used"),
    Metric(Kind::Gauge, "relay_ready", "1 if /readyz answers 200"),
    Metric(Kind::Gauge, "relay_build_info", "1, with the version of the program"),
];

/// The counter of [`shared::http::Limits`].
pub const CLOSED_CONNECTIONS: &str = "relay_closed_connections_total";

/// Why a breaker opens.
const BREAKER_REASONS: [FailureClass; 3] =
    [FailureClass::SinkDown, FailureClass::SinkMisconfigured, FailureClass::UnknownOutcome];

/// What a message comes to that does not end well, as `relay_messages_total` calls it.
const OTHER_ENDS: [&str; 5] = ["retried", "parked", "given_back", "lease_lost", "dead"];

/// One lane's own, looked up once.
#[derive(Debug)]
pub struct LaneMetrics {
    /// Messages claimed.
    pub claimed: Counter,
    /// By claim.
    pub batch: Histogram,
    /// Of a claim.
    pub claim: Histogram,
    /// Of a batch's effect.
    pub apply: Histogram,
    /// Of a batch's commit.
    pub finish: Histogram,
    in_flight: Gauge,
}

impl LaneMetrics {
    /// Those of an operation's lane; nothing is kept where no registry is installed.
    #[must_use]
    pub fn of(operation: Operation) -> LaneMetrics {
        let name = operation.name();
        LaneMetrics {
            claimed: counter!("relay_claimed_messages_total", "operation" => name),
            batch: histogram!("relay_claim_batch_messages", "operation" => name),
            claim: histogram!("relay_claim_duration_seconds", "operation" => name),
            apply: histogram!("relay_apply_duration_seconds", "operation" => name),
            finish: histogram!("relay_finish_duration_seconds", "operation" => name),
            in_flight: gauge!("relay_in_flight_messages", "operation" => name),
        }
    }

    /// Counts a claim; its messages are in flight until what comes back is dropped.
    #[must_use]
    pub fn claimed(&self, messages: usize, took: Duration) -> Counted {
        let count = u32::try_from(messages).unwrap_or(u32::MAX);
        self.claimed.increment(count.into());
        self.batch.record(count);
        self.claim.record(took);
        self.in_flight.increment(count);
        Counted(self.in_flight.clone(), count)
    }
}

/// Messages that are in flight.
#[derive(Debug)]
pub struct Counted(Gauge, u32);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(self.1);
    }
}

/// Counts messages that have come to this.
pub fn ended(operation: Operation, outcome: &'static str, messages: u64) {
    counter!("relay_messages_total", "operation" => operation.name(), "outcome" => outcome)
        .increment(messages);
}

/// Begins every counter whose labels are known at zero: a rate over a counter that appears with its first event misses that event.
/// Where no reconciliation is scheduled its counters are not there at all, so that nobody misses its runs.
pub fn begin(context: &Context, operations: &[Operation], reconciles: bool) {
    gauge!("relay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    for operation in operations {
        let outcomes = Outcome::ALL.map(Outcome::name);
        outcomes.into_iter().chain(OTHER_ENDS).for_each(|outcome| ended(*operation, outcome, 0));
        LaneMetrics::of(*operation).claimed.absolute(0);
    }
    if let Extractor::Model(model) = &context.extractor {
        let name = model.provider().name();
        counter!("relay_extractor_requests_total", "extractor" => name).absolute(0);
        counter!("relay_extractor_tokens_total", "extractor" => name).absolute(0);
    }
    if reconciles {
        for (scope, status) in ["all", "recent"]
            .map(|scope| (scope, ["completed", "skipped", "failed"]))
            .into_iter()
            .flat_map(|(scope, statuses)| statuses.map(|status| (scope, status)))
        {
            counter!("relay_reconcile_runs_total", "scope" => scope, "status" => status).absolute(0);
        }
        counter!("relay_reconcile_repairs_total").absolute(0);
        counter!("relay_reconcile_failed_repairs_total").absolute(0);
    }
}

/// Reads what is only looked at when somebody asks for the metrics.
pub fn measure(context: &Context, operations: &[Operation], readiness: &Readiness) {
    gauge!("relay_ready").set(if readiness.problems().is_empty() { 1 } else { 0 });
    let pool = ["relay_pool_connections", "relay_pool_connections_limit", "relay_pool_waiting"];
    measure_pool(&context.pool, pool);
    let lanes = context.board.lanes();
    for operation in operations {
        let lane = lanes.get(operation).filter(|lane| lane.state == LaneState::SinkDown);
        let open = lane.and_then(|lane| lane.failure.as_ref()).map(|failure| failure.class);
        for reason in BREAKER_REASONS {
            let is_open = if open == Some(reason) { 1 } else { 0 };
            gauge!("relay_breaker_open", "operation" => operation.name(), "reason" => reason.name())
                .set(is_open);
        }
    }
}
