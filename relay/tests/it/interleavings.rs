//! Whatever the order in which mails, duplicates, replays, crashes, lost leases and the portal come: every entry ends in the amount
//! of its highest stamp, and never goes back on the way.
//!
//! A case is a list of [`event::Event`]s, replayed step by step through the functions that a lane calls, so a list that fails shrinks to a
//! short one. `PROPTEST_CASES` raises the number of cases.

mod check;
mod event;
mod portal;
mod stage;

use crate::world::{Update, World, turmhaus};
use event::{event, mail, repetition};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use relay::context::Context;
use stage::Stage;
use tokio::runtime::Runtime;

/// Replays every generated case in one database: documents, keys and messages are fresh in each.
fn replay<S: Strategy<Value: std::fmt::Debug>>(
    cases: u32,
    hold_lower: bool,
    strategy: S,
    case: impl AsyncFn(Stage<'_>, S::Value),
) {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let context = runtime.block_on(context(&world, hold_lower));
    let cases = std::env::var("PROPTEST_CASES").map_or(cases, |cases| cases.parse().unwrap());
    let config = Config { cases, max_shrink_time: 120_000, failure_persistence: None, ..Config::default() };
    let end = TestRunner::new(config).run(&strategy, |input| {
        runtime.block_on(async { case(Stage::new(&world, &context).await, input).await });
        Ok(())
    });
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

async fn context(world: &World, hold_lower: bool) -> Context {
    let mut config = world.config(&world.mongo.url);
    config.guard.hold_lower = hold_lower;
    relay::relay::context(&config).await.unwrap()
}

#[test]
fn any_interleaving_ends_in_the_highest_stamp_of_every_entry() {
    replay(40, false, prop::collection::vec(event(), 1..50), async |mut stage, events| {
        stage.play(&events).await;
        stage.end().await;
        stage.check_ended(&["applied", "already", "superseded"]).await;
        stage.check_newest_stored().await;
    });
}

#[test]
fn any_interleaving_under_the_guard_writes_what_the_rules_say() {
    // Which amounts are held hangs on the batches; `Stage::apply` compares every one of them with the rules.
    replay(25, true, prop::collection::vec(event(), 1..50), async |mut stage, events| {
        stage.play(&events).await;
        stage.end().await;
        stage.check_ended(&["applied", "already", "superseded", "held_for_review"]).await;
    });
}

#[test]
fn two_workers_at_once_and_a_portal_that_reorders_end_in_the_highest_stamp_of_every_entry() {
    let backlog = prop::collection::vec(prop_oneof![3 => mail(), 1 => repetition()], 20..80);
    replay(12, false, (backlog, 1..9_i64), async |mut stage, (backlog, limit)| {
        stage.play(&backlog).await;
        let (first, second) = tokio::select! {
            both = async { tokio::join!(stage.work("first", limit), stage.work("second", limit)) } => both,
            () = portal::keep_reordering(stage.world) => unreachable!("it ends with the workers"),
        };
        stage.note(first);
        stage.note(second);
        stage.end().await;
        stage.check_ended(&["applied", "already", "superseded"]).await;
        stage.check_newest_stored().await;
    });
}

/// The amount and the date as read are not enough: a newer mail of the same moment may leave both as they were.
#[tokio::test]
async fn a_newer_mail_of_the_same_moment_that_confirms_the_amount_is_not_overwritten() {
    const MOMENT: &str = "2026-01-01T00:00:00Z";
    for form in [turmhaus("b"), turmhaus("b").into_iter().filter(|(name, _)| name != "id").collect()] {
        let world = World::new().await;
        world.client(vec![form]).await;
        world.commit(Update::of("1500", MOMENT)).await;
        world.once().await;
        let older = world.commit(Update::of("1600", MOMENT)).await;
        let (context, wire) = world.context_over_wire().await;
        let point = wire.hold_at(b"\x02update\0");
        let slow = world.try_once(&context);
        let fast = async {
            let go_on = point.reached().await;
            let newer = world.commit(Update::of("1500", MOMENT)).await;
            assert_eq!(world.once().await.applied, 1);
            go_on.send(()).unwrap();
            newer
        };
        let ((_, end), newer) = tokio::join!(slow, fast);
        assert_eq!(end, Ok(()));
        assert_eq!(world.state(older).await, "done/superseded/0");
        let entry = world.entries().await.remove(0);
        assert_eq!(entry.get_f64("current_debt_amount").unwrap(), 1500.0);
        assert_eq!(entry.get_document("_relay").unwrap().get_i64("email").unwrap(), newer);
    }
}
