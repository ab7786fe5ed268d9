//! Claim n + 1, apply n and finish n - 1 at the same time, in one task.
//!
//! Bounded: a batch is claimed only when the one before has gone into its apply, so at most four large ones are in flight (waiting,
//! applied, waiting to be finished, finished), some 4,000 messages of 4 KiB, and a few small ones. When finishing lags, nothing
//! more is applied, then nothing claimed. The first trouble stops the claims; what is in flight is finished or given back.

use super::{POSTGRES_PAUSE, Summary, Trouble, end::End};
use crate::{
    board::{Counts, LaneState},
    context::{Context, InFlight},
    operations::{self, Limits},
    outbox::{self, Claim, Finished, Label, LowWaterMark, Receipt},
    outcome::{Failure, Transition},
    telemetry::{self, Counted, LaneMetrics},
    turns::LARGE,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use shared::{
    admin::Readiness,
    message::{MessageId, Operation},
    postgres::{abandon, pool_reason, reason},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// An idle lane polls after this, then ever more rarely.
const IDLE_FIRST: Duration = Duration::from_millis(2);
/// An idle lane polls at least this often, whether or not anybody pokes it.
const IDLE_LAST: Duration = Duration::from_millis(250);

/// Most batches that are applied side by side, so that a message need not wait for the acknowledgement of the one before. None is
/// begun beside [`LARGE`] messages or more: large batches follow each other, else they would mean the same entries.
const SIDE_BY_SIDE: usize = 4;
/// Batches whose finish is under way or waits for its turn, before no other is applied.
const FINISHES: usize = 2;
/// A batch that is too slow for its lease makes the next one smaller, but not below this: where a single message is as slow, small
/// batches help nobody.
const SMALLEST: i64 = 64;

/// What to do when there is nothing to claim.
pub(super) enum WhenIdle<'a> {
    /// End.
    End,
    /// Wait for a poke, but not for ever.
    Wait(&'a Notify),
}

/// What one operation's three stages share.
#[derive(Debug)]
pub(super) struct Pipeline {
    operation: Operation,
    limits: Limits,
    context: Context,
    worker: String,
    readiness: Readiness,
    /// Most messages of the next claim; small after trouble.
    size: AtomicI64,
    /// Whether a batch has gone through since somebody asked.
    through: AtomicBool,
    /// The lowest message that was given back and has not been looked for again.
    returned: AtomicI64,
    /// One finish after the other.
    finishing: Mutex<()>,
    metrics: LaneMetrics,
}

/// A claimed batch on its way.
struct Batch {
    claims: Vec<Claim>,
    lease_end: Instant,
    in_flight: (InFlight, Counted),
}

/// A batch after its apply.
struct Applied {
    finished: Vec<Finished>,
    lease_end: Instant,
    in_flight: (InFlight, Counted),
}

/// A batch after its finish.
struct Ended {
    transitions: Vec<(Arc<Label>, Transition)>,
    receipt: Receipt,
    has_next: bool,
}

impl Pipeline {
    pub(super) fn new(
        operation: Operation,
        context: Context,
        worker: String,
        readiness: Readiness,
    ) -> Pipeline {
        let limits = operations::limits_here(&context, operation);
        let (size, returned) = (AtomicI64::new(limits.batch), AtomicI64::new(MessageId::MAX));
        let through = AtomicBool::new(false);
        let (finishing, metrics) = (Mutex::new(()), LaneMetrics::of(operation));
        Pipeline {
            operation,
            limits,
            context,
            worker,
            readiness,
            size,
            through,
            returned,
            finishing,
            metrics,
        }
    }

    /// Works until there is trouble, the token is cancelled, or (with [`WhenIdle::End`]) nothing is due.
    pub(super) async fn flow(
        &self,
        when_idle: WhenIdle<'_>,
        mark: &mut LowWaterMark,
        summary: &mut Summary,
        shutdown: &CancellationToken,
    ) -> Result<(), Trouble> {
        let stop = shutdown.child_token();
        let (to_apply, claimed) = mpsc::channel(1);
        let wake = if let WhenIdle::Wait(wake) = &when_idle { Some(*wake) } else { None };
        let (claim, carry) = tokio::join!(
            self.claim_all(when_idle, mark, to_apply, &stop),
            self.carry_all(claimed, summary, wake, &stop),
        );
        carry.and(claim)
    }

    /// Whether the sink answers.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        operations::probe(&self.context, self.operation).await
    }

    /// Tells readiness how the lane is.
    pub(super) fn report(&self, state: Result<(), &Trouble>) {
        let name = self.operation.name();
        self.readiness.set(name, state.map_err(|trouble| format!("{name}: {trouble}")));
    }

    /// Tells the board what the lane is doing.
    pub(super) fn show(&self, state: LaneState, failure: Option<Failure>) {
        self.context.board.set(self.operation, state, failure);
    }

    /// Tells the board that the lane is alive.
    pub(super) fn touch(&self) {
        self.context.board.touch(self.operation);
    }

    /// Whether a batch has gone through since this was asked last.
    pub(super) fn take_through(&self) -> bool {
        self.through.swap(false, Relaxed)
    }

    /// The first batch after something that went through is one message; each further try takes twice as many, so that a few
    /// messages that look like an outage do not block the others for ever.
    pub(super) fn resize_after_trouble(&self, has_gone_through: bool) {
        let size = self.size.load(Relaxed);
        self.size.store(if has_gone_through { 1 } else { (size * 2).min(self.limits.batch) }, Relaxed);
    }

    async fn claim_all(
        &self,
        when_idle: WhenIdle<'_>,
        mark: &mut LowWaterMark,
        to_apply: mpsc::Sender<Batch>,
        stop: &CancellationToken,
    ) -> Result<(), Trouble> {
        let mut idle = IDLE_FIRST;
        while let Some(Ok(slot)) = stop.run_until_cancelled(to_apply.reserve()).await {
            // Made before the look, so that a poke during it is not missed.
            let poked = if let WhenIdle::Wait(wake) = &when_idle { Some(wake.notified()) } else { None };
            let Some(mut in_flight) = stop.run_until_cancelled(self.context.in_flight()).await else { break };
            if self.context.board.is_paused(self.operation) {
                drop((slot, in_flight));
                self.report(Ok(()));
                if poked.is_none() || !self.wait_for_resume(stop).await {
                    break;
                }
                continue;
            }
            mark.lower(self.returned.swap(MessageId::MAX, Relaxed));
            let began = Instant::now();
            let lease_end = began + self.limits.lease;
            let claims = self.claim(mark).await.inspect_err(|_| stop.cancel())?;
            if !claims.is_empty() {
                self.context.board.work(self.operation);
                let counted = self.metrics.claimed(claims.len(), began.elapsed());
                if claims.iter().any(Claim::is_suspect) {
                    drop(in_flight);
                    in_flight = self.context.alone_in_flight().await;
                }
                slot.send(Batch { claims, lease_end, in_flight: (in_flight, counted) });
                idle = IDLE_FIRST;
            } else if mark.is_behind() {
                self.touch();
            } else {
                drop((slot, in_flight));
                self.report(Ok(()));
                self.show(LaneState::Idle, None);
                let Some(poked) = poked else { break };
                tokio::select! {
                    () = poked => {}
                    () = sleep(idle) => {}
                    () = stop.cancelled() => {}
                }
                idle = (idle * 2).min(IDLE_LAST);
            }
        }
        Ok(())
    }

    /// The low-water mark stays where it is meanwhile. False if the lane is to end.
    async fn wait_for_resume(&self, stop: &CancellationToken) -> bool {
        self.show(LaneState::Paused, None);
        let resumed = stop.run_until_cancelled(self.context.board.resumed(self.operation)).await;
        self.show(LaneState::Idle, None);
        resumed.is_some()
    }

    async fn claim(&self, mark: &mut LowWaterMark) -> Result<Vec<Claim>, Trouble> {
        let connection =
            self.context.pool.get().await.map_err(|error| Trouble::Postgres(pool_reason(&error)))?;
        let size = self.size.load(Relaxed);
        let claim = outbox::claim(&connection, self.operation, mark, size, self.limits.lease, &self.worker);
        match timeout(self.limits.finish, claim).await {
            Ok(Ok(claims)) => Ok(claims),
            Ok(Err(error)) => Err(Trouble::Postgres(reason(&error))),
            Err(_) => {
                // Else it would claim messages for nobody as soon as what it waits for is over.
                abandon(connection).await;
                Err(Trouble::Postgres("no reply to a claim".into()))
            }
        }
    }

    /// Applies and finishes what is claimed, until there is no more.
    async fn carry_all(
        &self,
        mut claimed: mpsc::Receiver<Batch>,
        summary: &mut Summary,
        wake: Option<&Notify>,
        stop: &CancellationToken,
    ) -> Result<(), Trouble> {
        let mut result = Ok(());
        let (mut applies, mut finishes) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut applied_messages = 0;
        loop {
            let has_room =
                applies.len() < SIDE_BY_SIDE && applied_messages < LARGE && finishes.len() < FINISHES;
            tokio::select! {
                Some(batch) = claimed.recv(), if has_room => {
                    applied_messages += batch.claims.len();
                    applies.push(self.apply(batch, stop));
                }
                Some(applied) = applies.next() => {
                    applied_messages -= applied.finished.len();
                    if let Some(failure) = applied.finished.iter().find_map(Finished::sinks_failure) {
                        stop.cancel();
                        result = Err(Trouble::Sink(failure.clone()));
                    }
                    finishes.push(self.finish(applied));
                }
                Some(ended) = finishes.next() => {
                    let has_next = ended.as_ref().is_ok_and(|ended| ended.has_next);
                    match ended {
                        Ok(ended) => self.count(&ended, summary),
                        Err(trouble) => {
                            stop.cancel();
                            result = result.and(Err(trouble));
                        }
                    }
                    if let (true, Some(wake)) = (has_next, wake) {
                        wake.notify_waiters(); // another lane's work
                    }
                }
                else => return result,
            }
        }
    }

    async fn apply(
        &self,
        Batch { claims, lease_end, in_flight }: Batch,
        stop: &CancellationToken,
    ) -> Applied {
        let Limits { batch, lease, apply, finish } = self.limits;
        let began = Instant::now();
        if stop.is_cancelled() || began + apply + finish > lease_end {
            let end = |claim: Claim| if claim.is_condemned() { claim.condemn() } else { claim.give_back() };
            let finished = claims.into_iter().map(end).collect();
            return Applied { finished, lease_end, in_flight };
        }
        let finished = operations::apply(&self.context, self.operation, claims, began + apply).await;
        let took = began.elapsed();
        self.metrics.apply.record(took);
        let is_done = |finished: &Finished| matches!(finished.transition, Transition::Done(_));
        if !stop.is_cancelled() && finished.iter().any(is_done) {
            self.through.store(true, Relaxed);
            let size = self.size.load(Relaxed);
            // The next batch waits for as long as this one takes, and must not be too late when its turn comes.
            let is_slow = took > (lease - apply - finish) / 2;
            let next = if is_slow { (size / 2).max(SMALLEST.min(size)) } else { (size * 2).min(batch) };
            self.size.store(next, Relaxed);
            self.context.board.recover(self.operation);
            self.report(Ok(()));
        }
        tracing::debug!(operation = self.operation.name(), count = finished.len(), ?took, "applied");
        Applied { finished, lease_end, in_flight }
    }

    /// Commits, again and again until the lease ends: after it somebody else repeats the work, and the fence makes that harmless.
    async fn finish(&self, Applied { finished, lease_end, in_flight }: Applied) -> Result<Ended, Trouble> {
        let _turn = self.finishing.lock().await;
        let began = Instant::now();
        let transitions: Vec<_> =
            finished.iter().map(|finished| (finished.label(), finished.transition.clone())).collect();
        let returned = finished.iter().filter(|finished| finished.returns_hot()).map(Finished::id).min();
        let has_next = finished.iter().any(|finished| finished.next.is_some());
        let mut receipt = Receipt::default();
        let mut left = finished;
        let mut most = left.len();
        loop {
            let text = match self.context.pool.get().await {
                Err(error) => pool_reason(&error),
                Ok(connection) => {
                    let finish = outbox::finish(&connection, &mut left, most, &mut receipt);
                    match timeout(self.limits.finish, finish).await {
                        Ok(Ok(())) => break,
                        Ok(Err(error)) => reason(&error),
                        Err(_) => {
                            abandon(connection).await;
                            most /= 2; // a server this slow may manage half
                            "no reply to a finish".into()
                        }
                    }
                }
            };
            if Instant::now() + POSTGRES_PAUSE >= lease_end {
                self.release(&left).await;
                return Err(Trouble::Postgres(text));
            }
            tracing::warn!(operation = self.operation.name(), "cannot finish a batch yet: {text}");
            sleep(POSTGRES_PAUSE).await;
        }
        drop(in_flight);
        self.metrics.finish.record(began.elapsed());
        self.returned.fetch_min(returned.unwrap_or(MessageId::MAX), Relaxed);
        tracing::debug!(operation = self.operation.name(), count = transitions.len(), took = ?began.elapsed(), "finished");
        Ok(Ended { transitions, receipt, has_next })
    }

    /// Whatever holds the finish up, the messages are not what crashes their workers.
    async fn release(&self, left: &[Finished]) {
        if let Ok(connection) = self.context.pool.get().await
            && timeout(POSTGRES_PAUSE, outbox::release(&connection, left)).await.is_err()
        {
            abandon(connection).await;
        }
    }

    fn count(&self, Ended { transitions, receipt, .. }: &Ended, summary: &mut Summary) {
        let (before, mut finished) = (*summary, 0);
        let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
        summary.claimed += u64::try_from(transitions.len()).unwrap_or(u64::MAX);
        for (label, transition) in transitions {
            let end = End::of(label.message_id, transition, receipt);
            match end {
                End::Released => summary.given_back += 1,
                End::LeaseLost => {}
                End::Refused => summary.dead += 1,
                End::As(transition) => {
                    summary.count(transition);
                    finished += u64::from(matches!(transition, Transition::Done(_)));
                }
            }
            *ends.entry(end.name()).or_default() += 1;
            end.log(label);
        }
        for (name, count) in ends {
            telemetry::ended(self.operation, name, count);
        }
        let counts = Counts {
            claimed: summary.claimed - before.claimed,
            finished,
            retried: summary.retried - before.retried,
            dead: summary.dead - before.dead,
        };
        self.context.board.count(self.operation, counts);
    }
}
