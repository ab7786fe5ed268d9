//! A Postgres that breaks, loses replies or falls silent under running relays: they live on, nothing is lost and nothing is counted.

use crate::{
    feed::{Feed, Relay},
    outages::until,
    world::World,
};
use testkit::Wire;
use tokio::sync::oneshot;

fn over(wire: &Wire, world: &World) -> Relay {
    Relay::start(world, &[("DATABASE_URL", &wire.instead(&world.relay_url()))])
}

/// Commits so many messages and waits until a relay's finish of the first of them has come to this point of the wire.
async fn held_at_its_finish(
    wire: &Wire,
    feed: &mut Feed<'_>,
    count: usize,
    is_reply: bool,
) -> oneshot::Sender<()> {
    // Nothing but a finish says the number as the portal writes it, in the rows for the ledger.
    let number = format!("healthy {}", feed.sent);
    let point =
        if is_reply { wire.hold_reply_to(number.as_bytes()) } else { wire.hold_request(number.as_bytes()) };
    feed.commit(count).await;
    point.reached().await
}

/// Commits messages and ends all connections of the relays while at least one of them is in the middle of a finish.
async fn end_connections_in_a_finish(world: &World, feed: &mut Feed<'_>) {
    let mut maintenance = world.database.client().await;
    let transaction = maintenance.transaction().await.unwrap();
    // Each finish waits for this a moment before it puts its messages off.
    transaction.batch_execute("lock table creditor_debts in share row exclusive mode").await.unwrap();
    feed.commit(30).await;
    let in_a_finish = "select count(*) > 0 from pg_stat_activity
        where datname = current_database() and application_name = 'relay' and wait_event_type = 'Lock'";
    until(|| async { world.row(in_a_finish).await.get(0) }).await;
    world
        .run(
            "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name like 'relay%'",
        )
        .await;
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn messages_outlast_connections_that_postgres_ends_again_and_again() {
    for relays in [1, 2] {
        let world = World::new().await;
        let mut feed = Feed::new(&world);
        let mut relays: Vec<Relay> = (0..relays).map(|_| Relay::start(&world, &[])).collect();
        for _ in 0..5 {
            end_connections_in_a_finish(&world, &mut feed).await;
            feed.commit(30).await;
        }
        feed.all_end_well().await;
        feed.commit(1).await;
        feed.all_end_well().await;
        assert!(relays.iter_mut().all(Relay::is_at_work));
    }
}

#[tokio::test]
async fn a_finish_whose_reply_is_lost_is_found_committed_and_done_once() {
    let world = World::new().await;
    let (mut feed, wire) = (Feed::new(&world), Wire::before(&world.database.url).await);
    let mut relay = over(&wire, &world);
    for _ in 0..3 {
        let go_on = held_at_its_finish(&wire, &mut feed, 1, true).await;
        wire.cut();
        wire.mend();
        drop(go_on);
        relay.says("cannot finish a batch yet").await;
        feed.all_end_well().await;
    }
    let claims = "select array_agg(claim_count) from outbox_messages";
    assert_eq!(world.row(claims).await.get::<_, Vec<i64>>(0), [2, 2, 2], "one claim and one finish each");
    assert!(relay.is_at_work());
}

async fn a_claim_whose_reply_is_lost(relays: usize) {
    let world = World::new().await;
    let (mut feed, wire) = (Feed::new(&world), Wire::before(&world.database.url).await);
    let mut relays: Vec<Relay> = (0..relays).map(|_| over(&wire, &world)).collect();
    let point = wire.hold_reply(b"new_debt_amount"); // the payloads
    feed.commit(20).await;
    let go_on = point.reached().await;
    wire.cut();
    wire.mend();
    drop(go_on);
    feed.all_end_well().await;
    assert!(relays.iter_mut().all(Relay::is_at_work));
}

#[tokio::test]
async fn a_claim_whose_reply_is_lost_comes_back_when_its_lease_ends() {
    tokio::join!(a_claim_whose_reply_is_lost(1), a_claim_whose_reply_is_lost(2));
}

#[tokio::test]
async fn relays_outlast_a_postgres_that_cannot_be_reached_for_a_while() {
    for relays in [1, 2] {
        let world = World::new().await;
        let (mut feed, wire) = (Feed::new(&world), Wire::before(&world.database.url).await);
        let mut relays: Vec<Relay> = (0..relays).map(|_| over(&wire, &world)).collect();
        feed.commit(20).await;
        feed.all_end_well().await;
        wire.cut();
        feed.commit(20).await;
        for relay in &relays {
            relay.says("not ready: creditor_debt_update: Postgres: ").await;
        }
        wire.mend();
        feed.all_end_well().await;
        assert!(relays.iter_mut().all(Relay::is_at_work));
    }
}

/// Longer than the relay asks, and longer than the leases last. Its finish arrives when nobody waits for it any more.
#[tokio::test]
async fn a_relay_outlasts_a_postgres_that_falls_silent_until_its_leases_have_ended() {
    let world = World::new().await;
    let (mut feed, wire) = (Feed::new(&world), Wire::before(&world.database.url).await);
    let mut relay = over(&wire, &world);
    let go_on = held_at_its_finish(&wire, &mut feed, 20, false).await;
    wire.freeze();
    drop(go_on);
    feed.commit(20).await;
    relay.says("cannot finish a batch yet: no reply to a finish").await;
    let held = "select count(*) = 0 from outbox_messages where claimed_until > now()";
    until(|| async { world.row(held).await.get(0) }).await;
    wire.thaw();
    feed.all_end_well().await;
    assert!(relay.is_at_work());
}

/// The other relay does its work meanwhile, and what the silent one had sent changes nothing when it arrives.
#[tokio::test]
async fn another_relay_takes_over_from_one_for_which_postgres_is_silent() {
    let world = World::new().await;
    let (mut feed, wire) = (Feed::new(&world), Wire::before(&world.database.url).await);
    let mut silent = over(&wire, &world);
    let go_on = held_at_its_finish(&wire, &mut feed, 20, false).await;
    wire.freeze();
    drop(go_on);
    let other = Relay::start(&world, &[]);
    feed.commit(20).await;
    feed.all_end_well().await;
    let traces = "select string_agg(o::text, ' ' order by id), max(id) from outbox_messages o";
    let row = world.row(traces).await;
    let (before, newest): (String, i64) = (row.get(0), row.get(1));
    wire.thaw();
    // Its last attempt to finish is under way, or was over just before: it tries as long as its lease lasts, and how long an attempt
    // takes depends on whether its pool still had a connection for it.
    let words = ["its lease ended before the finish: another worker has it", "creditor_debt_update: ready"];
    silent.says_one_of(&words).await;
    assert_eq!(other.terminate().await, Some(0));
    feed.commit(20).await;
    feed.all_end_well().await;
    assert!(silent.is_at_work());
    let traces = format!("{traces} where id <= {newest}");
    assert_eq!(world.row(&traces).await.get::<_, String>(0), before, "what arrives late changes nothing");
}

#[tokio::test]
async fn what_is_not_answered_in_time_goes_on_neither_in_postgres_nor_in_the_pool() {
    let world = World::new().await;
    let context = world.context().await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(200);
    let look = async |connection: &mut shared::postgres::Connection| {
        connection
            .batch_execute("select pg_sleep(60)")
            .await
            .map_err(|error| relay::ledger::unreadable(&error))
    };
    let failure = context.ask(deadline, "no reply to a look", look).await.unwrap_err();
    assert_eq!(failure.to_string(), "sink_down: Postgres: no reply to a look");
    assert_eq!(context.pool.status().size, 0);
    let sleeping = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'relay' and state = 'active'";
    until(|| async { world.row(sleeping).await.get::<_, i64>(0) == 0 }).await;
}
