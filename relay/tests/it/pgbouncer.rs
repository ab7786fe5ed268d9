//! Behind a `PgBouncer` in transaction mode, with fewer connections to Postgres than the relays have to it: each transaction may meet
//! another server process, and what the one before left there.

use crate::{
    feed::{Feed, Relay},
    world::{Update, World, turmhaus},
};
use serde_json::Value;
use testkit::{PgBouncer, url_as};

#[tokio::test]
async fn relays_drain_the_outbox_through_it_and_listen_past_it() {
    let world = World::new().await;
    let bouncer = PgBouncer::before(&world.database.url, 2).await;
    let through = bouncer.instead(&world.relay_url());
    let direct = world.relay_url();
    let settings = [("DATABASE_URL", through.as_str()), ("DATABASE_DIRECT_URL", direct.as_str())];
    let mut feed = Feed::new(&world);
    feed.commit(200).await;
    let relays = [Relay::start(&world, &settings), Relay::start(&world, &settings)];
    feed.commit(300).await;
    feed.all_end_well().await;
    let listening = "select count(*) = 2 from pg_stat_activity where datname = current_database() and query like 'listen%'";
    assert!(world.row(listening).await.get::<_, bool>(0), "both listen");
    for relay in relays {
        // Nothing that the retries have hidden, nor another's statement under the same name.
        assert!(!relay.has_said("WARN") && !relay.has_said("ERROR"));
        assert_eq!(relay.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn without_a_way_past_it_polling_alone_delivers() {
    let world = World::new().await;
    let bouncer = PgBouncer::before(&world.database.url, 2).await;
    let through = bouncer.instead(&world.relay_url());
    let relay = Relay::start(&world, &[("DATABASE_URL", &through)]);
    relay.says("relay started").await;
    let mut feed = Feed::new(&world);
    for _ in 0..3 {
        feed.commit(50).await; // without a poke
        feed.all_end_well().await;
    }
    assert!(!relay.has_said("WARN") && !relay.has_said("ERROR"));
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn operators_work_through_it() {
    let world = World::new().await;
    let bouncer = PgBouncer::before(&world.database.url, 1).await;
    let through = bouncer.instead(&url_as("operator", &world.database.url));
    world.client(vec![turmhaus("b")]).await;
    let held = world.commit(Update { confidence: Some(0.1), ..Update::default() }).await;
    assert_eq!(world.once().await.held, 1);
    let said = async |arguments: &[&str]| -> Value {
        let mut command = world.program(&world.mongo.url, arguments);
        let output = command.arg("--json").env("DATABASE_URL", &through).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    };
    let id = held.to_string();
    assert_eq!(said(&["review", "list"]).await[0]["email_id"], held);
    said(&["review", "accept", &id, "--by", "Frau Kundig"]).await;
    assert_eq!(world.once().await.applied, 1);
    said(&["pause", "email_fetch", "--reason", "maintenance"]).await;
    assert!(said(&["status"]).await["operations"]["email_fetch"]["paused"].is_object());
    said(&["resume", "email_fetch", "--by", "Frau Kundig"]).await;
    said(&["correct", &id, "--amount", "77.50", "--by", "Frau Kundig", "--reason", "a call"]).await;
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(77.5));
    for arguments in [
        &["explain", &id][..],
        &["dead-letters", "list"],
        &["reconcile", "--repair"],
        &["audit"],
        &["replay", "--email", &id],
    ] {
        said(arguments).await;
    }
}

#[tokio::test]
async fn migrations_go_past_it() {
    let world = World::new().await;
    let mut command = world.program(&world.mongo.url, &["migrate", "--json"]);
    // Nothing listens on the discard port of this machine.
    command.env("DATABASE_URL", "postgres://owner@127.0.0.1:9/outbox");
    let output = command.env("DATABASE_DIRECT_URL", &world.database.url).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
