//! Servers that are away: nothing is lost, nothing is counted, everything is applied afterwards.

use crate::{
    fleet::{self, Fleet},
    world::{Update, World, turmhaus},
};
use mongodb::bson::doc;
use relay::{lane::Trouble, outcome::FailureClass};
use shared::admin::Readiness;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::{ReplicaSet, Wire};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// More than any event takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_outage_of_mongodb_counts_no_attempt_and_the_backlog_drains_by_itself() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (context, wire) = world.context_over_wire().await;
    wire.cut();
    let email = world.commit(Update::default()).await;
    for _ in 0..2 {
        let (summary, end) = world.try_once(&context).await;
        assert!(matches!(end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkDown));
        assert_eq!((summary.claimed, summary.given_back), (1, 1));
    }
    assert_eq!(world.state(email).await, "waiting/sink_down/0");
    assert_eq!(world.shows(email).await, "extracted/-/pending");
    let row = world
        .row(
            "select m.sync_error, o.claimed_until is null, o.unfinished_claims, o.error_message
        from incoming_emails m, outbox_messages o",
        )
        .await;
    assert!(row.get::<_, &str>(0).starts_with("MongoDB unreachable since 20"), "{}", row.get::<_, &str>(0));
    assert!(row.get::<_, bool>(1));
    assert_eq!(row.get::<_, i32>(2), 0);

    // A running relay opens its breaker, probes, and goes on by itself.
    let (shutdown, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
    let readiness = Readiness::default();
    let operation = shared::message::Operation::CreditorDebtUpdate;
    let lane = relay::lane::Lane::new(operation, context, "test".into(), readiness.clone());
    let running = tokio::spawn(lane.run(wake, shutdown.clone()));
    until(|| async { !readiness.problems().is_empty() }).await;
    wire.mend();
    until(|| async { world.state(email).await == "done/applied/0" }).await;
    until(|| async { readiness.problems().is_empty() }).await;
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let error: Option<String> = world.row("select sync_error from incoming_emails").await.get(0);
    assert_eq!(error, None);
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn a_reply_that_is_lost_on_its_way_back_is_found_out_and_not_guessed() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let (context, wire) = world.context_over_wire().await;
    let point = wire.hold_at(b"nModified");
    let relay = world.try_once(&context);
    let cut = async {
        let go_on = point.reached().await;
        wire.cut(); // the update has taken effect, its reply will never arrive
        drop(go_on);
        until(|| async { world.amount("b").await.is_some() }).await;
        wire.mend();
    };
    let ((summary, end), ()) = tokio::join!(relay, cut);
    if end.is_err() {
        // The one look inside the lease came before the wire was mended: given back, uncounted.
        assert_eq!(summary.given_back, 1);
        assert_eq!(world.try_once(&context).await.1, Ok(()));
    }
    let state = world.state(email).await;
    assert!(state == "done/applied/0" || state == "done/already/0", "{state}");
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn a_wrong_password_kills_no_message() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let url = world.mongo.url.replacen("mongodb://", "mongodb://nobody:wrong@", 1);
    let context = relay::relay::context(&world.config(&url)).await.unwrap();
    let (summary, end) = world.try_once(&context).await;
    assert!(matches!(end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkMisconfigured));
    assert_eq!(summary.given_back, 1);
    assert_eq!(world.state(email).await, "waiting/sink_misconfigured/0");
    assert_eq!(world.once().await.applied, 1);
}

#[tokio::test]
async fn postgres_that_breaks_during_the_apply_leaves_the_message_to_the_next_claim() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let wire = Wire::before(&world.database.url).await;
    let mut config = world.config(&world.mongo.url);
    config.database_url = wire.instead(&world.relay_url()).parse().unwrap();
    let context = relay::relay::context(&config).await.unwrap();
    let point = wire.hold_at(b"fenced as (");
    let relay = world.try_once(&context);
    let cut = async {
        let go_on = point.reached().await;
        wire.cut();
        drop(go_on);
        wire.mend();
    };
    let ((summary, end), ()) = tokio::join!(relay, cut);
    assert_eq!(end, Ok(()), "the finish is repeated inside the lease");
    assert_eq!(summary.applied, 1);
    assert_eq!(world.state(email).await, "done/applied/0");
}

#[tokio::test]
async fn a_forgotten_transaction_holds_up_no_message_but_its_own_and_kills_none() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let other = world.commit(Update::of("2000", "2026-03-01T00:00:00Z")).await;
    let mut forgotten = world.database.client().await;
    let transaction = forgotten.transaction().await.unwrap();
    let statement = "select from incoming_emails where id = $1 for update";
    transaction.execute(statement, &[&email]).await.unwrap();
    for _ in 0..8 {
        let (_, end) = world.try_once(&world.context().await).await;
        assert_eq!(end, Ok(()));
        assert_eq!(world.state(other).await, "done/applied/0");
        assert_eq!(world.state(email).await, "waiting//0", "never crashed, never counted");
        world.run("update outbox_messages set available_at = now() where deferred").await;
    }
    transaction.rollback().await.unwrap();
    world.once().await;
    assert_eq!(world.state(email).await, "done/superseded/0");
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_locked_table_is_postgres_trouble_and_makes_no_message_suspect() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let mut maintenance = world.database.client().await;
    let transaction = maintenance.transaction().await.unwrap();
    transaction.batch_execute("lock table creditor_debts in share row exclusive mode").await.unwrap();
    let (_, end) = world.try_once(&world.context().await).await;
    assert!(matches!(end, Err(Trouble::Postgres(text)) if text.contains("no reply to a finish")));
    // Its finish has been called off, so it does not come through later either.
    let waiting = "select count(*) = 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    until(|| async { world.row(waiting).await.get(0) }).await;
    let row = world.row("select claimed_until is null, unfinished_claims from outbox_messages").await;
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (true, 0));
    transaction.rollback().await.unwrap();
    world.run("update outbox_messages set available_at = now() where deferred").await;
    world.once().await;
    assert_eq!(world.state(email).await, "done/already/0");
}

#[tokio::test]
async fn messages_outlast_a_mongodb_that_is_stopped_for_a_while() {
    let mut set = ReplicaSet::new(1).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    fleet::commit(&mut fleets).await;
    set.members[0].stop().await;
    fleet::commit(&mut fleets).await;
    for fleet in &fleets {
        fleet.says("MongoDB unreachable since 20").await;
    }
    set.members[0].start().await;
    fleet::all_applied(&mut fleets).await;
}

#[tokio::test]
async fn messages_outlast_a_mongodb_that_is_killed() {
    let mut set = ReplicaSet::new(1).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    fleet::commit(&mut fleets).await;
    set.members[0].kill();
    fleet::commit(&mut fleets).await;
    for fleet in &fleets {
        fleet.says("MongoDB unreachable since 20").await;
    }
    set.members[0].start().await;
    fleet::all_applied(&mut fleets).await;
}

#[tokio::test]
async fn messages_outlast_a_mongodb_that_answers_nothing_for_longer_than_a_call_may_take() {
    let set = ReplicaSet::new(1).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    set.members[0].freeze();
    fleet::commit(&mut fleets).await;
    for fleet in &fleets {
        fleet.says("MongoDB unreachable since 20%: no reply within 4 s").await;
    }
    set.members[0].thaw();
    fleet::all_applied(&mut fleets).await;
}

#[tokio::test]
async fn messages_outlast_a_primary_that_is_none_for_a_while() {
    let set = ReplicaSet::new(1).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    fleet::commit(&mut fleets).await;
    set.members[0].admin(doc! { "replSetStepDown": 600, "force": true }).await;
    fleet::commit(&mut fleets).await;
    for fleet in &fleets {
        fleet.says("MongoDB unreachable since 20").await;
    }
    set.members[0].admin(doc! { "replSetFreeze": 0 }).await; // it may be elected again
    fleet::all_applied(&mut fleets).await;
}

#[tokio::test]
async fn messages_outlast_a_wire_that_breaks_between_the_effect_and_its_reply() {
    for relays in [1, 2] {
        let set = ReplicaSet::new(1).await;
        let wire = Wire::before(&set.url).await;
        let over_wire = format!("mongodb://{}/?directConnection=true", wire.address());
        let mut fleet = Fleet::new(&set.url, &over_wire, relays).await;
        fleet.commit().await;
        fleet.all_applied().await;
        let point = wire.hold_reply(b"nModified");
        fleet.commit().await;
        let go_on = point.reached().await;
        wire.cut();
        drop(go_on);
        fleet.says("MongoDB unreachable since 20").await;
        wire.mend();
        fleet.all_applied().await;
    }
}

#[tokio::test]
async fn messages_outlast_a_wrong_password_until_it_is_put_right() {
    let set = ReplicaSet::new(1).await;
    // A server that asks nobody for a password still refuses a wrong one.
    let with_password = set.url.replacen("mongodb://", "mongodb://relay:secret@", 1);
    let (one, two) = (Fleet::new(&set.url, &with_password, 1), Fleet::new(&set.url, &with_password, 2));
    let (one, two) = tokio::join!(one, two);
    let mut fleets = [one, two];
    fleet::commit(&mut fleets).await;
    for fleet in &fleets {
        fleet.says("MongoDB unreachable since 20%: Authentication failed").await;
    }
    set.members[0].admin(doc! { "createUser": "relay", "pwd": "secret", "roles": ["root"] }).await;
    fleet::all_applied(&mut fleets).await;
}

/// Waits for an event that somebody else brings about.
pub(crate) async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "what the test waits for has not come to pass");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
