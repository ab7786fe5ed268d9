//! The stage: one client document with a few creditor entries, the mails about them, and three workers with something in their hands.

use super::{event::Event, portal};
use crate::world::World;
use jiff::{Timestamp, ToSpan};
use mongodb::bson::{Document, doc};
use relay::{
    context::Context,
    operations,
    outbox::{self, Claim, Finished, LowWaterMark, Receipt},
    outcome::Transition,
};
use rust_decimal::Decimal;
use shared::{
    message::{CreditorDebtUpdate, EmailId, MessageId, Operation, Origin, Revision, Stamp},
    money::Amount,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
};
use tokio::time::Instant;

const OPERATION: Operation = Operation::CreditorDebtUpdate;
/// Two entries that have an id, two that have none.
pub(super) const ENTRIES: usize = 4;
/// Enough that one sleeps while the others work.
pub(super) const WORKERS: usize = 3;

/// What a worker has in its hands.
#[derive(Default)]
pub(super) enum Hands {
    #[default]
    Empty,
    Claimed(Vec<Claim>),
    Applied(Vec<Finished>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Mail {
    pub(super) email_id: EmailId,
    pub(super) entry: usize,
    pub(super) stamp: Stamp,
    pub(super) amount: Amount,
    received_at: Timestamp,
}

/// What has become of a message.
pub(super) struct Course {
    pub(super) mail: usize,
    /// Who claimed it last: nobody else may end it.
    holder: Option<usize>,
    pub(super) claims: i64,
    /// Finishes that were committed, and those of them that ended the message.
    pub(super) finishes: i64,
    pub(super) ends: i64,
}

/// What a worker has done, to be noted in the courses of its messages.
#[derive(Default)]
pub(super) struct Log {
    claimed: Vec<MessageId>,
    finished: Vec<MessageId>,
    ended: Vec<MessageId>,
}

pub(super) struct Stage<'a> {
    pub(super) world: &'a World,
    pub(super) context: &'a Context,
    pub(super) mails: Vec<Mail>,
    pub(super) messages: BTreeMap<MessageId, Course>,
    /// The last one works at the end only.
    workers: [Hands; WORKERS + 1],
    /// The highest stamp that each entry, and the ledger about it, has had so far.
    pub(super) stored: [Option<Stamp>; ENTRIES],
    pub(super) in_ledger: [Option<Stamp>; ENTRIES],
    creditors_added: usize,
}

impl<'a> Stage<'a> {
    pub(super) async fn new(world: &'a World, context: &'a Context) -> Stage<'a> {
        world.run("delete from outbox_messages").await; // of a case that failed
        world.mongo.clients.delete_many(doc! {}).await.unwrap();
        world.client((0..ENTRIES).map(entry).collect()).await;
        Stage {
            world,
            context,
            mails: Vec::new(),
            messages: BTreeMap::new(),
            workers: Default::default(),
            stored: Default::default(),
            in_ledger: Default::default(),
            creditors_added: 0,
        }
    }

    pub(super) async fn play(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Mail { entry, hour, cents } => self.mail(*entry, *hour, *cents).await,
                Event::Duplicate { mail } => self.again(*mail, Origin::Mail).await,
                Event::Replay { mail } => self.again(*mail, Origin::Replay).await,
                Event::Step { worker, limit } => self.step(*worker, *limit).await,
                Event::Crash { worker } => {
                    self.workers[*worker] = Hands::Empty;
                    self.end_lease(*worker).await;
                }
                Event::LeaseEnds { worker } => self.end_lease(*worker).await,
                Event::Portal(change) => {
                    self.creditors_added += 1;
                    let ledger = self.ledger().await;
                    portal::rewrite(self.world, change, self.creditors_added, &ledger).await;
                }
            }
        }
    }

    /// Everything due is worked off; then those who still have something in their hands come, far too late.
    pub(super) async fn end(&mut self) {
        self.world
            .run("update outbox_messages set claimed_until = now() - interval '1 second' where claimed_until is not null")
            .await;
        loop {
            self.nothing_waits_for_its_time().await;
            self.step(WORKERS, 500).await; // a suspect comes alone
            if matches!(self.workers[WORKERS], Hands::Empty) {
                break;
            }
            while !matches!(self.workers[WORKERS], Hands::Empty) {
                self.step(WORKERS, 500).await;
            }
        }
        for worker in (0..WORKERS).rev() {
            while !matches!(self.workers[worker], Hands::Empty) {
                self.step(worker, 1).await;
            }
        }
        assert!(self.claim("nobody", 1, &mut Log::default()).await.is_empty(), "nothing is due any more");
    }

    /// One worker's loop until nothing is due.
    pub(super) async fn work(&self, worker: &str, limit: i64) -> Log {
        let mut log = Log::default();
        loop {
            let claims = self.claim(worker, limit, &mut log).await;
            if claims.is_empty() && self.nothing_waits_for_its_time().await == 0 {
                return log;
            }
            let batch = self.apply(claims).await;
            self.finish(batch, &mut log).await;
        }
    }

    pub(super) fn note(&mut self, log: Log) {
        let mut count = |ids: Vec<MessageId>, field: fn(&mut Course) -> &mut i64| {
            for id in ids {
                *field(self.messages.get_mut(&id).unwrap()) += 1;
            }
        };
        count(log.claimed, |course| &mut course.claims);
        count(log.finished, |course| &mut course.finishes);
        count(log.ended, |course| &mut course.ends);
    }

    async fn mail(&mut self, entry: usize, hour: i64, cents: i64) {
        let received_at = Timestamp::from_second(1_770_000_000).unwrap() + hour.hours();
        let email_id = self.world.email(&address(entry), received_at).await;
        let stamp = Stamp::new(received_at, email_id, Revision::FIRST).unwrap();
        let amount = Amount::from_decimal(Decimal::new(cents, 2)).unwrap();
        self.mails.push(Mail { email_id, entry, stamp, amount, received_at });
        self.send(self.mails.len() - 1, Origin::Mail).await;
    }

    async fn again(&mut self, mail: usize, origin: Origin) {
        let Some(mail) = mail.checked_rem(self.mails.len()) else { return };
        self.send(mail, origin).await;
    }

    async fn send(&mut self, index: usize, origin: Origin) {
        let mail = self.mails[index];
        let update = CreditorDebtUpdate {
            email_id: mail.email_id,
            client_name: None,
            client_aktenzeichen: Some("2024/118".into()),
            creditor_email: address(mail.entry),
            creditor_name: None,
            new_debt_amount: Some(mail.amount),
            response_text: None,
            reference_numbers: Vec::new(),
            extraction_confidence: None,
            received_at: mail.received_at,
            stamp: mail.stamp,
            origin,
            decided_by: None,
            client_id: None,
            entry_key: None,
            expected: None,
            hold: None,
        };
        let payload = serde_json::to_value(update).unwrap();
        let id = self.world.message(OPERATION.name(), mail.email_id, payload).await;
        self.messages.insert(id, Course { mail: index, holder: None, claims: 0, finishes: 0, ends: 0 });
    }

    async fn step(&mut self, worker: usize, limit: i64) {
        let mut log = Log::default();
        self.workers[worker] = match take(&mut self.workers[worker]) {
            Hands::Empty => match self.claim(&worker.to_string(), limit, &mut log).await {
                claims if claims.is_empty() => Hands::Empty,
                claims => {
                    for claim in &claims {
                        self.messages.get_mut(&claim.id).unwrap().holder = Some(worker);
                    }
                    Hands::Claimed(claims)
                }
            },
            Hands::Claimed(claims) => {
                let before = self.state().await;
                let mails = claims.iter().map(|claim| self.mails[self.messages[&claim.id].mail]).collect();
                let batch = self.apply(claims).await;
                let ended = |finished: &Finished| matches!(finished.transition, Transition::Done(_));
                assert!(batch.iter().all(ended), "nobody is in the way of this worker");
                self.check_applied(&before, mails).await;
                Hands::Applied(batch)
            }
            Hands::Applied(batch) => {
                let held = |id: &MessageId| self.messages[id].holder == Some(worker);
                let held: BTreeSet<MessageId> = batch.iter().map(Finished::id).filter(held).collect();
                self.finish(batch, &mut log).await;
                assert_eq!(
                    BTreeSet::from_iter(log.finished.iter().copied()),
                    held,
                    "who has the claim ends it"
                );
                self.check_never_back().await;
                Hands::Empty
            }
        };
        self.note(log);
    }

    async fn claim(&self, worker: &str, limit: i64, log: &mut Log) -> Vec<Claim> {
        let connection = self.context.pool.get().await.unwrap();
        // A new mark each time: it moves with the clock, and the same events have to come to the same claims.
        let mut mark = LowWaterMark::default();
        let lease = operations::limits(OPERATION).lease;
        let claims = outbox::claim(&connection, OPERATION, &mut mark, limit, lease, worker).await.unwrap();
        log.claimed.extend(claims.iter().map(|claim| claim.id));
        claims
    }

    async fn apply(&self, claims: Vec<Claim>) -> Vec<Finished> {
        let deadline = Instant::now() + operations::limits(OPERATION).apply;
        let batch = operations::apply(self.context, OPERATION, claims, deadline).await;
        for Finished { transition, .. } in &batch {
            // What was moved or raced each time while it was being written is put behind the others.
            assert!(
                matches!(transition, Transition::Done(_) | Transition::Postponed(_, _)),
                "{transition:?}"
            );
        }
        batch
    }

    async fn finish(&self, mut batch: Vec<Finished>, log: &mut Log) {
        let connection = self.context.pool.get().await.unwrap();
        let ended = |finished: &&Finished| matches!(finished.transition, Transition::Done(_));
        let ended: Vec<MessageId> = batch.iter().filter(ended).map(Finished::id).collect();
        let mut receipt = Receipt::default();
        outbox::finish(&connection, &mut batch, usize::MAX, &mut receipt).await.unwrap();
        assert!(batch.is_empty() && receipt.refused.is_empty());
        log.ended.extend(ended.iter().filter(|id| receipt.committed.contains(id)));
        log.finished.extend(receipt.committed);
    }

    /// What was put behind the others is due at once; how many were.
    async fn nothing_waits_for_its_time(&self) -> u64 {
        let statement =
            "update outbox_messages set available_at = now() where deferred and available_at > now()
            and processed_at is null and dead_at is null";
        self.world.sql.execute(statement, &[]).await.unwrap()
    }

    async fn end_lease(&self, worker: usize) {
        // A message that six workers did not finish would be dead: `claims.rs` shows that.
        let statement = "update outbox_messages set claimed_until = now() - interval '1 second',
            unfinished_claims = least(unfinished_claims, 5) where claimed_by = $1";
        self.world.sql.execute(statement, &[&worker.to_string()]).await.unwrap();
    }
}

pub(super) fn address(entry: usize) -> String {
    format!("konto@creditor{entry}.example")
}

fn entry(index: usize) -> Document {
    let mut entry = doc! { "sender_email": address(index), "claim_amount": 980, "portal_note": "theirs" };
    if index < 2 {
        entry.insert("id", format!("e{index}"));
    } else {
        entry.insert("reference_number", mongodb::bson::Bson::Null);
    }
    entry
}
