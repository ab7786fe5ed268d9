//! Operations that somebody has paused.

use crate::{
    feed::{Feed, Relay},
    outages::until,
    world::{Update, World, turmhaus},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits until so many relays say that the lane of debt updates is in this state.
async fn all_say(world: &World, state: &str, relays: i64) {
    let statement = format!(
        "select count(*) from relay_workers where lanes -> 'creditor_debt_update' ->> 'state' = '{state}'"
    );
    until(|| async { world.row(&statement).await.get::<_, i64>(0) == relays }).await;
}

#[tokio::test]
async fn a_paused_operation_stops_on_two_relays_and_loses_nothing() {
    let world = World::new().await;
    let mut feed = Feed::new(&world);
    let relays = [Relay::start(&world, &[]), Relay::start(&world, &[])];
    feed.commit(50).await;
    let done = "select count(*) from outbox_messages where processed_at is not null";
    until(|| async { world.row(done).await.get::<_, i64>(0) > 10 }).await;
    let paused = world.json_of(&["pause", "creditor_debt_update", "--reason", "the portal is rebuilt"]).await;
    assert_eq!((&paused["paused"], &paused["changed"]), (&json!(true), &json!(true)));
    let until_then = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until_then {
        feed.commit(5).await;
        sleep(Duration::from_millis(50)).await;
    }
    // The others go on.
    let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    let extraction = world.message("email_extraction", email, json!({ "email_id": email })).await;
    let is_read = format!("select processed_at is not null from outbox_messages where id = {extraction}");
    until(|| async { world.row(&is_read).await.get(0) }).await;
    world.run(&format!("delete from outbox_messages where aggregate_id = '{email}'")).await;
    all_say(&world, "paused", 2).await;
    let waiting = "select count(*) filter (where claimed_until is not null), count(*) from outbox_messages where processed_at is null";
    let row = world.row(waiting).await;
    assert_eq!(row.get::<_, i64>(0), 0, "what was under way has ended");
    assert!(row.get::<_, i64>(1) > 20);
    let resumed = world.json_of(&["resume", "creditor_debt_update"]).await;
    assert_eq!((&resumed["paused"], &resumed["changed"]), (&json!(false), &json!(true)));
    assert_eq!(resumed["pause"]["reason"], "the portal is rebuilt");
    feed.all_end_well().await;
    let meanwhile = "select count(*) from outbox_messages
        where processed_at > (select at + interval '2 seconds' from operator_actions where action = 'pause')
        and processed_at < (select at from operator_actions where action = 'resume')";
    assert_eq!(world.row(meanwhile).await.get::<_, i64>(0), 0);
    for relay in relays {
        assert_eq!(relay.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn a_relay_that_starts_while_an_operation_is_paused_claims_none_of_it() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::default()).await;
    world.relay(&["pause", "creditor_debt_update"]).await;
    let running = Relay::start(&world, &[]);
    all_say(&world, "paused", 1).await;
    let claims = "select max(claim_count) from outbox_messages";
    assert_eq!(world.row(claims).await.get::<_, i64>(0), 0);
    assert_eq!(running.terminate().await, Some(0), "a paused lane ends when it is asked to");
    assert_eq!(world.row(claims).await.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_run_once_leaves_out_what_is_paused() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::default()).await;
    world.relay(&["pause", "creditor_debt_update"]).await;
    let (code, stdout, stderr) = world.relay(&["run", "--once"]).await;
    assert!(code == 0 && stdout.contains(r#""claimed":0"#) && stderr.contains("paused"), "{stdout} {stderr}");
    world.relay(&["resume", "creditor_debt_update"]).await;
    assert_eq!(world.once().await.applied, 1);
}

#[tokio::test]
async fn pausing_and_resuming_twice_is_once_and_each_act_is_recorded_once() {
    let world = World::new().await;
    let first = world.json_of(&["pause", "email_extraction", "--reason", "one", "--by", "Frau Kundig"]).await;
    assert_eq!(first["changed"], true);
    let second = world.json_of(&["pause", "email_extraction", "--reason", "two"]).await;
    assert_eq!((&second["changed"], &second["pause"]["reason"]), (&json!(false), &json!("one")));
    assert_eq!(second["pause"]["actor"], "Frau Kundig");
    let (_, words, _) = world.relay(&["pause", "email_extraction"]).await;
    assert!(words.contains("already, by Frau Kundig"), "{words}");
    assert_eq!(world.json_of(&["resume", "email_extraction"]).await["changed"], true);
    let again = world.json_of(&["resume", "email_extraction"]).await;
    assert_eq!((&again["changed"], &again["pause"]), (&json!(false), &Value::Null));
    let acts =
        world.row("select string_agg(action || ' ' || actor, ', ' order by id) from operator_actions").await;
    assert_eq!(acts.get::<_, &str>(0), "pause Frau Kundig, resume clerk");
    let (code, _, words) = world.relay(&["pause", "fly"]).await;
    assert!(code == 2 && words.contains("email_fetch, email_extraction, creditor_debt_update"), "{words}");
}
