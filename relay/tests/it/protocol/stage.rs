//! Plays operations on the real outbox and on the model, and compares every row after each.

use super::{
    model::{Held, Model, Row, State},
    operation::{Act, End, Operation, WORKERS},
    rows::rows,
};
use crate::world::World;
use proptest::test_runner::TestCaseError;
use relay::{
    outbox::{self, Claim, Finished, LowWaterMark, Receipt},
    outcome::{Failure, Transition, decide},
};
use shared::{
    message::{MessageId, Operation as Kind},
    postgres::Connection,
};
use std::{collections::HashSet, fmt::Debug, pin::pin, time::Duration};
use tokio::time::timeout;

type Played = Result<(), TestCaseError>;

/// No case takes as long as a lease, or as a message waits whose time is not said to have come.
const LONG: Duration = Duration::from_secs(100_000_000);
/// For a claim: nobody has to wait for anybody.
const PATIENCE: Duration = Duration::from_secs(10);
const KIND: Kind = Kind::CreditorDebtUpdate;

/// A relay: what it holds, and where its claims begin.
#[derive(Default)]
struct Worker {
    hands: Vec<(Claim, Held)>,
    mark: LowWaterMark,
    /// Its mark is not above the message of this place.
    mark_at_most: usize,
}

pub(super) struct Stage<'a> {
    world: &'a World,
    relay: &'a Connection,
    operator: &'a mut Connection,
    model: Model,
    seen: Vec<Row>,
    ids: Vec<MessageId>,
    workers: [Worker; WORKERS],
}

fn same<T: PartialEq + Debug>(real: &T, model: &T, what: &str) -> Played {
    if real == model {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}: {real:?}, but in the model {model:?}")))
}

/// No statement of the outbox is ever refused here.
fn refused(error: tokio_postgres::Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

impl<'a> Stage<'a> {
    pub(super) async fn new(
        world: &'a World,
        relay: &'a Connection,
        operator: &'a mut Connection,
    ) -> Stage<'a> {
        world.run("delete from outbox_messages; alter table outbox_messages alter id restart").await;
        let (model, seen, ids, workers) = Default::default();
        Stage { world, relay, operator, model, seen, ids, workers }
    }

    pub(super) async fn play(&mut self, operations: &[Operation]) -> Played {
        for operation in operations {
            self.carry_out(operation).await?;
            self.compare(operation).await?;
        }
        Ok(())
    }

    /// The message of this place among those that have come, counted round and round.
    fn message(&self, message: usize) -> Option<(usize, MessageId)> {
        let message = message.checked_rem(self.ids.len())?;
        Some((message, self.ids[message]))
    }

    async fn carry_out(&mut self, operation: &Operation) -> Played {
        match operation {
            Operation::Enqueue => {
                self.ids.push(self.world.message(KIND.name(), 1, serde_json::json!({})).await);
                self.model.enqueue();
            }
            Operation::Claim { worker, limit, beside } => {
                match beside.and_then(|message| self.message(message)) {
                    Some(locked) => self.claim_beside(*worker, *limit, locked).await?,
                    None => self.claim(*worker, *limit, None).await?,
                }
            }
            Operation::Finish { worker, count, ends, most } => {
                self.finish(*worker, *count, ends, *most).await?
            }
            Operation::Release { worker, count } => self.release(*worker, *count).await?,
            Operation::LeaseEnds { message } => {
                if let Some((message, id)) = self.message(*message) {
                    self.lease_ends(message, id).await;
                }
            }
            Operation::Crashes { worker, limit, times } => {
                for _ in 0..*times {
                    self.claim(*worker, *limit, None).await?;
                    self.compare(operation).await?;
                    self.crash(*worker).await;
                }
            }
            Operation::NewMark { worker } => self.new_mark(*worker),
            Operation::Due { message } => {
                if let Some((message, id)) = self.message(*message) {
                    self.due(message, id).await;
                }
            }
            Operation::Act { message, act } => {
                if let Some((message, id)) = self.message(*message) {
                    self.act(*act, message, id).await?;
                }
            }
        }
        Ok(())
    }

    /// With a new mark, so that the claim has to look at all the others.
    async fn claim_beside(&mut self, number: usize, limit: i64, (locked, id): (usize, MessageId)) -> Played {
        self.new_mark(number);
        let world = self.world;
        world.run(&format!("begin; select from outbox_messages where id = {id} for update")).await;
        let mut claim = pin!(self.claim(number, limit, Some(locked)));
        let claimed = timeout(PATIENCE, claim.as_mut()).await;
        world.run("rollback").await;
        if let Ok(played) = claimed {
            return played;
        }
        let _ = claim.await; // so that it does not take messages of the next case
        Err(TestCaseError::fail("a claim waits for somebody's lock"))
    }

    fn new_mark(&mut self, number: usize) {
        (self.workers[number].mark, self.workers[number].mark_at_most) = Default::default();
    }

    async fn claim(&mut self, number: usize, limit: i64, locked: Option<usize>) -> Played {
        let (name, worker) = (format!("worker {number}"), &mut self.workers[number]);
        let claims =
            outbox::claim(self.relay, KIND, &mut worker.mark, limit, LONG, &name).await.map_err(refused)?;
        let taken: Vec<MessageId> = claims.iter().map(|claim| claim.id).collect();
        // Where the mark is hangs on the clock: it may have passed what its lane has seen, and nothing else.
        let all = self.ids.len();
        let places =
            |messages: Vec<usize>| messages.into_iter().map(|message| self.ids[message]).collect::<Vec<_>>();
        let marks = 0..=worker.mark_at_most;
        let walks = marks
            .flat_map(|mark| [mark..all, 0..mark])
            .map(|walk| places(self.model.claimed(limit, walk, locked)));
        if !walks.clone().any(|walk| walk == taken) {
            same(&taken, &places(self.model.claimed(limit, 0..all, locked)), "a claim takes")?;
        }
        worker.mark_at_most = all;
        for claim in claims {
            let message = self.ids.iter().position(|id| *id == claim.id).unwrap();
            let held = self.model.claim(message, &name);
            same(&claim.is_suspect(), &held.is_suspect(), "suspicion")?;
            same(&claim.is_condemned(), &held.is_condemned(), "condemned")?;
            worker.hands.push((claim, held));
        }
        Ok(())
    }

    async fn finish(&mut self, number: usize, count: usize, ends: &[End], most: usize) -> Played {
        let hands = self.take(number, count);
        let (mut batch, mut committed) = (Vec::new(), HashSet::new());
        for ((claim, held), end) in hands.into_iter().zip(ends.iter().cycle()) {
            if self.model.finish(held, *end) {
                committed.insert(claim.id);
            }
            batch.push(ended(claim, *end));
        }
        let returned: Vec<_> = batch.iter().filter(|end| end.returns_hot()).map(Finished::id).collect();
        let mut receipt = Receipt::default();
        outbox::finish(self.relay, &mut batch, most, &mut receipt).await.map_err(refused)?;
        same(&receipt.committed, &committed, "a finish changes")?;
        same(&(receipt.refused.len() + receipt.released.len()), &0, "refused or released")?;
        // As the lane does it, also where somebody else has the message by now.
        for id in returned {
            let message = self.ids.iter().position(|known| *known == id).unwrap();
            self.workers[number].mark.lower(id);
            self.workers[number].mark_at_most = self.workers[number].mark_at_most.min(message);
        }
        Ok(())
    }

    async fn release(&mut self, number: usize, count: usize) -> Played {
        let hands = self.take(number, count);
        let (mut batch, mut expected) = (Vec::new(), Vec::new());
        for (claim, held) in hands {
            if self.model.release(held) {
                expected.push(claim.id);
            }
            batch.push(claim.give_back());
        }
        let mut released = outbox::release(self.relay, &batch).await.map_err(refused)?;
        released.sort_unstable();
        expected.sort_unstable();
        same(&released, &expected, "released")?;
        // It waits for seconds; here, until it is said to be due.
        let later = "update outbox_messages set available_at = now() + interval '1 year' where id = any($1)";
        self.world.sql.execute(later, &[&released]).await.unwrap();
        Ok(())
    }

    fn take(&mut self, number: usize, count: usize) -> Vec<(Claim, Held)> {
        let hands = &mut self.workers[number].hands;
        hands.drain(..count.min(hands.len())).collect()
    }

    async fn lease_ends(&mut self, message: usize, id: MessageId) {
        let ends = "update outbox_messages set claimed_until = now() - interval '1 second' where id = $1 and claimed_until is not null";
        self.world.sql.execute(ends, &[&id]).await.unwrap();
        self.model.lease_ends(message);
    }

    /// All that it holds comes back, and whoever starts in its place begins anew.
    async fn crash(&mut self, number: usize) {
        self.workers[number] = Worker::default();
        let name = format!("worker {number}");
        for message in 0..self.ids.len() {
            if self.model.rows[message].owner.as_ref() == Some(&name) {
                self.lease_ends(message, self.ids[message]).await;
            }
        }
    }

    async fn due(&mut self, message: usize, id: MessageId) {
        // In the order of the ids, before every act of today.
        let due = "update outbox_messages set available_at = timestamptz '2020-01-01' + $1::bigint * interval '1 second'
            where id = $1 and deferred";
        self.world.sql.execute(due, &[&id]).await.unwrap();
        self.model.due(message);
    }

    async fn act(&mut self, act: Act, message: usize, id: MessageId) -> Played {
        let transaction = self.operator.transaction().await.unwrap();
        let (done, expected) = match act {
            Act::Requeue => {
                let acts = outbox::requeue(&transaction, &[id], 0, 0.0).await.map_err(refused)?;
                (acts.len() == 1, self.model.requeue(message))
            }
            Act::DiscardDead => {
                let acts = outbox::discard_dead(&transaction, &[id]).await.map_err(refused)?;
                (acts.len() == 1, self.model.discard(message, State::Dead))
            }
            Act::Discard => {
                let done = outbox::discard(&transaction, id).await.map_err(refused)?;
                (done, self.model.discard(message, State::Waiting))
            }
        };
        transaction.commit().await.unwrap();
        same(&done, &expected, "a person's act")
    }

    /// Every row is what the model says, and has become it in a way that nothing may leave.
    async fn compare(&mut self, operation: &Operation) -> Played {
        let real = rows(self.world).await;
        let is_act = matches!(operation, Operation::Act { .. });
        for (before, now) in self.seen.iter().zip(&real) {
            same(&(before.claim_count <= now.claim_count), &true, "counts only grow")?;
            same(&(before.state != State::Done || before == now), &true, "what is done stays as it is")?;
            same(
                &(before.state != State::Dead || before == now || is_act),
                &true,
                "the dead come back by an act alone",
            )?;
        }
        same(&real.len(), &self.model.rows.len(), "messages")?;
        for (id, (real, model)) in self.ids.iter().zip(real.iter().zip(&self.model.rows)) {
            same(real, model, &format!("message {id} after {operation:?}"))?;
        }
        self.seen = real;
        let holders = self.workers.iter().flat_map(|worker| &worker.hands);
        let rows = &self.model.rows;
        let held: Vec<_> = holders
            .filter(|(_, held)| rows[held.message].leased && held.stands(rows))
            .map(|(claim, _)| claim.id)
            .collect();
        same(&held.iter().collect::<HashSet<_>>().len(), &held.len(), "nobody holds what another one holds")
    }

    /// All leases end, all times come, and one new relay ends whatever is left.
    pub(super) async fn end(mut self) -> Played {
        for number in 0..WORKERS {
            self.crash(number).await;
        }
        for message in 0..self.ids.len() {
            self.due(message, self.ids[message]).await;
            self.lease_ends(message, self.ids[message]).await;
        }
        let waiting = |model: &Model| model.rows.iter().filter(|row| row.state == State::Waiting).count();
        let mut left = waiting(&self.model);
        while left > 0 {
            let step = Operation::Claim { worker: 0, limit: 50, beside: None };
            self.carry_out(&step).await?;
            self.compare(&step).await?;
            let count = self.workers[0].hands.len();
            self.finish(0, count, &[End::Done(relay::outcome::Outcome::Applied)], count.max(1)).await?;
            self.compare(&step).await?;
            let now = waiting(&self.model);
            same(&(now < left), &true, "what waits can be reached")?;
            left = now;
        }
        Ok(())
    }
}

/// As the lane ends it, but that nothing becomes due by itself.
fn ended(claim: Claim, end: End) -> Finished {
    if claim.is_condemned() {
        return claim.condemn();
    }
    match end {
        End::Done(outcome) => claim.done(outcome, 0),
        End::GivenBack => claim.give_back(),
        End::Failed(class) => {
            let transition = match decide(Failure::new(class, "of the test"), claim.past) {
                Transition::Retry(_, failure) => Transition::Retry(LONG, failure),
                Transition::Parked(_, failure) => Transition::Parked(LONG, failure),
                Transition::Postponed(_, failure) => Transition::Postponed(LONG, failure),
                other @ (Transition::Done(_) | Transition::GivenBack(_) | Transition::Dead(_)) => other,
            };
            claim.finish(transition, 0)
        }
    }
}
