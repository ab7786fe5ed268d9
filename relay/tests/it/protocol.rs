//! Claim, finish, retry, give back, park, expire, requeue, discard, suspicion: whatever their order, every row of the real outbox is after
//! each step what a small model in memory says.
//!
//! A case is a list of [`operation::Operation`]s; one that fails shrinks to a short one. `PROPTEST_CASES` raises the number of cases. That
//! the comparison sees anything is shown by outboxes that are broken on purpose: by a trigger, so that the programs stay as they are.

mod model;
mod operation;
mod rows;
mod stage;

use crate::world::World;
use operation::operation;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use stage::Stage;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A trigger's body, run before every update of a message.
const BROKEN: [(&str, &str); 7] = [
    (
        "a claim of what somebody has had before does not count, so that he may still finish it",
        "if new.claimed_by is not null and old.claimed_by is not null then
            new.claim_count := old.claim_count; new.unfinished_claims := old.unfinished_claims; end if;",
    ),
    (
        "a finish leaves the claim count",
        "if new.claimed_by is null then new.claim_count := old.claim_count; end if;",
    ),
    (
        "a lease is over at once",
        "if new.claimed_until is distinct from old.claimed_until then new.claimed_until := now() - interval '1 minute'; end if;",
    ),
    ("a retry is not counted", "if new.deferred then new.retry_count := old.retry_count; end if;"),
    (
        "a finish forgets that earlier claims were left",
        "if new.claimed_by is null and old.unfinished_claims > 1 then new.unfinished_claims := 1; end if;",
    ),
    (
        "a requeue keeps the failures",
        "if old.dead_at is not null then new.retry_count := old.retry_count; end if;",
    ),
    (
        "a retried message is put back in front",
        "if new.claimed_by is null and old.deferred and new.processed_at is null then new.deferred := false; end if;",
    ),
];

/// Plays generated cases in one database; messages are fresh in each.
fn replay(
    world: &World,
    runtime: &Runtime,
    mut runner: TestRunner,
) -> Result<(), TestError<Vec<operation::Operation>>> {
    let pool = shared::postgres::pool(&world.relay_url(), "relay", 1, Duration::from_secs(20)).unwrap();
    let relay = runtime.block_on(pool.get()).unwrap();
    let operator = std::cell::RefCell::new(runtime.block_on(world.operator()));
    runner.run(&prop::collection::vec(operation(), 1..60), |operations| {
        let mut operator = operator.borrow_mut();
        runtime.block_on(async {
            let mut stage = Stage::new(world, &relay, &mut operator).await;
            stage.play(&operations).await?;
            stage.end().await
        })
    })
}

fn config(cases: u32, max_shrink_iters: u32) -> Config {
    // a minute: what waits in vain takes ten seconds each time
    let max_shrink_time = 60_000;
    Config { cases, max_shrink_iters, max_shrink_time, failure_persistence: None, ..Config::default() }
}

#[test]
fn every_row_is_what_the_model_says_whatever_happens_to_the_messages() {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let cases = std::env::var("PROPTEST_CASES").map_or(60, |cases| cases.parse().unwrap());
    let end = replay(&world, &runtime, TestRunner::new(config(cases, 1000)));
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

#[test]
fn an_outbox_that_is_broken_on_purpose_is_found_out() {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    for (what, body) in BROKEN {
        let breaking = format!(
            "create or replace function broken() returns trigger language plpgsql as $$ begin {body} return new; end $$;
            create or replace trigger broken before update on outbox_messages for each row execute function broken();"
        );
        runtime.block_on(world.run(&breaking));
        // The same cases each time.
        let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let end = replay(&world, &runtime, TestRunner::new_with_rng(config(60, 0), same));
        let Err(TestError::Fail(reason, operations)) = end else { panic!("not noticed: {what}: {end:?}") };
        println!("{what}: {reason} by {operations:?}");
        runtime.block_on(world.run("drop trigger broken on outbox_messages"));
    }
}
