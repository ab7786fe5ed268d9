//! Relays that come and go while messages keep coming, what they take of Postgres meanwhile, and that they need no poke.

use crate::{
    feed::{Feed, Relay},
    outages::until,
    world::World,
};
use std::{cell::Cell, time::Duration};
use tokio::time::{interval, timeout};

/// Well below a lease, which is how long a message would wait that a relay took with it.
const PAUSE: Duration = Duration::from_secs(5);

/// Waits until so many relays listen for pokes.
async fn listening(world: &World, relays: usize) {
    let statement = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'relay-listen'";
    until(|| async { world.row(statement).await.get::<_, i64>(0) == relays as i64 }).await;
}

async fn ends_well(relay: Relay) {
    let code = timeout(Duration::from_secs(30), relay.terminate()).await;
    assert_eq!(code, Ok(Some(0)), "a relay that is asked to end does, and all is well");
}

/// Replaces every relay three times: starts a new one beside the old ones, then asks the oldest to end.
async fn replace_thrice(world: &World, relays: &mut Vec<Relay>) {
    let count = relays.len();
    let done = "select count(*) from outbox_messages where processed_at is not null";
    for _ in 0..3 * count {
        relays.push(Relay::start(world, &[]));
        listening(world, count + 1).await;
        let before: i64 = world.row(done).await.get(0);
        until(|| async { world.row(done).await.get::<_, i64>(0) > before + 10 }).await;
        ends_well(relays.remove(0)).await;
        listening(world, count).await;
    }
}

async fn a_rolling_restart(side_by_side: usize) {
    let world = World::new().await;
    let mut relays: Vec<Relay> = (0..side_by_side).map(|_| Relay::start(&world, &[])).collect();
    listening(&world, side_by_side).await;
    let is_over = Cell::new(false);
    let feed = async {
        let (mut feed, mut pace) = (Feed::new(&world), interval(Duration::from_millis(10)));
        while !is_over.get() {
            pace.tick().await;
            feed.commit(10).await;
        }
        feed
    };
    let restarts = async {
        replace_thrice(&world, &mut relays).await;
        is_over.set(true);
    };
    let (feed, ()) = tokio::join!(feed, restarts);
    feed.all_end_well().await;
    let longest = "select extract(epoch from max(processed_at - created_at))::float8, extract(epoch from max(pause))::float8
        from (select *, processed_at - lag(processed_at) over (order by processed_at) as pause from outbox_messages) o";
    let row = world.row(longest).await;
    for (column, what) in ["a message waited", "no message ended"].into_iter().enumerate() {
        let seconds: f64 = row.get(column);
        assert!(seconds < PAUSE.as_secs_f64(), "{what} for {seconds} s");
    }
    for relay in relays {
        ends_well(relay).await;
    }
}

#[tokio::test]
async fn one_relay_is_replaced_by_the_next_without_a_pause() {
    a_rolling_restart(1).await;
}

#[tokio::test]
async fn two_relays_are_replaced_one_after_the_other_without_a_pause() {
    a_rolling_restart(2).await;
}

/// The most connections that the relays of this database have had at once while the future ran.
async fn most_connections(world: &World, during: impl Future<Output = ()>) -> i64 {
    let watcher = world.database.client().await;
    let statement = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'relay%'";
    let mut most = 0;
    let watch = async {
        loop {
            let row = watcher.query_one(statement, &[]).await.unwrap();
            most = row.get::<_, i64>(0).max(most);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = during => {}
        () = watch => {}
    }
    most
}

#[tokio::test]
async fn a_relay_takes_no_more_connections_than_its_pool_and_one_that_listens() {
    const MESSAGES: usize = 3000;
    for (pool_size, relays) in [(5, 1), (5, 2)] {
        let world = World::new().await;
        let mut feed = Feed::new(&world);
        feed.commit(MESSAGES / 2).await;
        let settings = [("RELAY_POOL_SIZE", format!("{pool_size}"))];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let relays: Vec<Relay> = (0..relays).map(|_| Relay::start(&world, &settings)).collect();
        let most = most_connections(&world, async {
            listening(&world, relays.len()).await;
            feed.commit(MESSAGES / 2).await;
            feed.all_end_well().await;
        })
        .await;
        let allowed = (pool_size + 1) * relays.len() as i64;
        assert!((2..=allowed).contains(&most), "{most} connections, and not {allowed} at most");
        for relay in relays {
            ends_well(relay).await;
        }
    }
}

/// Nothing here is ever poked; these relays could not even hear it.
#[tokio::test]
async fn relays_that_cannot_listen_find_the_messages_all_the_same_and_soon() {
    for relays in [1, 2] {
        let world = World::new().await;
        let mut feed = Feed::new(&world);
        // Nothing listens on the discard port of this machine.
        let deaf = [("DATABASE_DIRECT_URL", "postgres://nobody@127.0.0.1:9/none")];
        let relays: Vec<Relay> = (0..relays).map(|_| Relay::start(&world, &deaf)).collect();
        for count in [1, 30, 1] {
            feed.commit(count).await;
            feed.all_end_well().await;
        }
        listening(&world, 0).await;
        // The first ones may have waited for the start.
        let waited = "select extract(epoch from max(processed_at - created_at))::float8 from outbox_messages
            where id > (select min(id) from outbox_messages)";
        let seconds: f64 = world.row(waited).await.get(0);
        assert!(seconds < PAUSE.as_secs_f64(), "found after {seconds} s");
        for relay in relays {
            ends_well(relay).await;
        }
    }
}
