//! Relays at work as processes of their own, and messages that tell whether one was lost, counted, or done in the wrong order.

use crate::{
    outages::until,
    world::{Update, World},
};
use mongodb::bson::doc;
use std::process::Stdio;
use testkit::{Database, MongoDatabase};
use tokio::process::Child;

const ENTRIES: [&str; 4] = ["e0", "e1", "e2", "e3"];

/// A database of its own in Postgres and in MongoDB, and the relays between them.
pub(crate) struct Fleet {
    pub(crate) world: World,
    relays: Vec<Child>,
    rounds: usize,
}

impl Fleet {
    /// On the MongoDB at this URL; the relays reach it by another one, where a test needs that.
    pub(crate) async fn new(mongodb_url: &str, relays_url: &str, relays: usize) -> Fleet {
        let world = world_at(mongodb_url).await;
        let entry = |id: &&str| doc! { "id": *id, "sender_email": format!("{id}@turmhaus.example") };
        world.client(ENTRIES.iter().map(entry).collect()).await;
        let relays = (0..relays).map(|_| relay(&world, relays_url)).collect();
        Fleet { world, relays, rounds: 0 }
    }

    /// One relay alone, and two side by side, each fleet with work of its own and the first of it done.
    pub(crate) async fn one_and_two(mongodb_url: &str) -> [Fleet; 2] {
        let one = Fleet::new(mongodb_url, mongodb_url, 1);
        let two = Fleet::new(mongodb_url, mongodb_url, 2);
        let (one, two) = tokio::join!(one, two);
        let mut fleets = [one, two];
        commit(&mut fleets).await;
        all_applied(&mut fleets).await;
        fleets
    }

    /// A new and higher amount for every entry.
    pub(crate) async fn commit(&mut self) {
        self.rounds += 1;
        for id in ENTRIES {
            let update = Update {
                amount: Some(format!("{}.25", 1000 + self.rounds)),
                received_at: format!("2026-01-{:02}T00:00:00Z", self.rounds).leak(),
                creditor_email: format!("{id}@turmhaus.example").leak(),
                ..Update::default()
            };
            self.world.commit(update).await;
        }
    }

    /// The amount that every entry ends with.
    pub(crate) fn amount(&self) -> f64 {
        1000.25 + self.rounds as f64
    }

    /// Waits until a message that was given back says why. As long as that reason holds, none can end.
    pub(crate) async fn says(&self, error: &str) {
        let statement = format!(
            "select bool_or(processed_at is null and dead_at is null), exists (select from incoming_emails where sync_error like '{error}%')
            from outbox_messages"
        );
        until(|| async {
            let row = self.world.row(&statement).await;
            assert!(row.get::<_, bool>(0), "all messages have ended, and that cannot be");
            row.get(1)
        })
        .await;
    }

    /// Waits until every message has ended: well, decided once, without a counted attempt, and all relays still at work.
    pub(crate) async fn all_applied(&mut self) {
        let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
        until(|| async { self.world.row(left).await.get(0) }).await;
        let odd = "select count(*) from outbox_messages o join incoming_emails m on m.id::text = o.aggregate_id
            where dead_at is not null or retry_count <> 0 or sync_retry_count <> 0 or unfinished_claims <> 0
            or outcome not in ('applied', 'already', 'superseded') or sync_status <> 'synced' or sync_error is not null
            or (select count(*) from decisions where message_id = o.id) <> 1";
        assert_eq!(self.world.row(odd).await.get::<_, i64>(0), 0, "dead, counted, held or not decided once");
        for id in ENTRIES {
            assert_eq!(self.world.amount(id).await, Some(self.amount()), "{id}");
        }
        let wrong = format!("select count(*) from creditor_debts where amount <> {}", self.amount());
        assert_eq!(self.world.row(&wrong).await.get::<_, i64>(0), 0, "the ledger says what MongoDB holds");
        for relay in &mut self.relays {
            assert_eq!(relay.try_wait().unwrap(), None, "no relay has ended");
        }
    }
}

pub(crate) async fn commit(fleets: &mut [Fleet]) {
    for fleet in fleets {
        fleet.commit().await;
    }
}

pub(crate) async fn all_applied(fleets: &mut [Fleet]) {
    for fleet in fleets {
        fleet.all_applied().await;
    }
}

/// A world on a MongoDB of the test's own.
pub(crate) async fn world_at(mongodb_url: &str) -> World {
    let (database, mongo) = (Database::new().await, MongoDatabase::at(mongodb_url).await);
    let sql = database.client().await;
    World { database, mongo, sql }
}

/// `relay run`; its log is the test's. It is killed when the value goes.
pub(crate) fn relay(world: &World, mongodb_url: &str) -> Child {
    world.program(mongodb_url, &["run"]).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}
