//! Batches beside each other: small ones do not wait for each other, large ones of workers that met at the same entries do, but
//! never for long.

use crate::world::{Update, World, turmhaus};
use mongodb::bson::doc;
use shared::message::EmailId;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The first bytes of the update command: a string member called `update`.
const UPDATE_COMMAND: &[u8] = b"\x02update\0";
/// Messages of a batch that is large enough to take a turn.
const MANY: usize = 120;
const TURN: &str =
    "pg_locks where locktype = 'advisory' and (classid::bigint << 32) + objid::bigint = 7355608140";

async fn many(world: &World, day: usize) -> Vec<EmailId> {
    let mut emails = Vec::new();
    for second in 0..MANY {
        let at = format!("2026-01-{day:02}T00:{:02}:{:02}Z", second / 60, second % 60);
        emails.push(world.commit(Update::of(&format!("{}", 1000 * day + second), at.leak())).await);
    }
    emails
}

/// Waits until so many sessions have the turn, and so many wait for it.
async fn turns(world: &World, taken: i64, waiting: i64) {
    let look = format!(
        "select count(*) filter (where granted), count(*) filter (where not granted) from {TURN}
        and database = (select oid from pg_database where datname = current_database())"
    );
    until(async || {
        let row = world.row(&look).await;
        (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (taken, waiting)
    })
    .await;
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[tokio::test]
async fn after_a_lost_race_a_large_batch_waits_for_its_turn_but_not_for_ever() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (context, wire) = world.context_over_wire().await;
    let raced = world.commit(Update::of("1000", "2026-01-01T00:00:00Z")).await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let portal = async {
        let go_on = point.reached().await;
        let raise = doc! { "$set": { "final_creditor_list.0.current_debt_amount": 900.0 } };
        world.mongo.clients.update_one(doc! {}, raise).await.unwrap();
        go_on.send(()).unwrap();
    };
    let ((_, end), ()) = tokio::join!(world.try_once(&context), portal);
    assert_eq!((end, world.state(raced).await.as_str()), (Ok(()), "done/applied/0"));

    let holder = world.database.client().await;
    holder.batch_execute("select pg_advisory_lock(7355608140)").await.unwrap();
    let emails = many(&world, 2).await;
    let ((summary, end), ()) = tokio::join!(world.try_once(&context), turns(&world, 1, 1));
    assert_eq!((end, summary.claimed), (Ok(()), MANY as u64));
    assert_eq!(world.state(emails[MANY - 1]).await, "done/applied/0");
    assert_eq!(world.amount("b").await, Some(2119.0));
}

#[tokio::test]
async fn large_batches_of_two_workers_follow_each_other() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (first, wire) = world.context_over_wire().await;
    let second = world.context().await;
    first.turns.lost_race();
    second.turns.lost_race();
    many(&world, 2).await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let later = async {
        let go_on = point.reached().await;
        turns(&world, 1, 0).await;
        many(&world, 3).await;
        let free = async {
            turns(&world, 1, 1).await;
            go_on.send(()).unwrap();
        };
        tokio::join!(world.try_once(&second), free).0
    };
    let ((one, one_end), (two, two_end)) = tokio::join!(world.try_once(&first), later);
    assert_eq!((one_end, two_end), (Ok(()), Ok(())));
    assert_eq!((one.claimed, two.claimed), (MANY as u64, MANY as u64));
    assert_eq!(world.amount("b").await, Some(3119.0));
    turns(&world, 0, 0).await;
}

#[tokio::test]
async fn a_small_batch_does_not_wait_for_the_one_before() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (url, wire) = world.mongo_wire().await;
    let held = world.commit(Update::of("1000", "2026-01-02T00:00:00Z")).await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let mut relay = world.program(&url, &["run"]).spawn().unwrap();
    let go_on = point.reached().await;
    let next = world.commit(Update::of("1100", "2026-01-03T00:00:00Z")).await;
    until(async || world.state(next).await == "done/applied/0").await;
    assert_eq!(world.state(held).await, "waiting//0");
    go_on.send(()).unwrap();
    until(async || world.state(held).await == "done/superseded/0").await;
    assert_eq!(world.amount("b").await, Some(1100.0));
    relay.kill().await.unwrap();
}
