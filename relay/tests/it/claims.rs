//! Claims, leases and the fenced finish.

use crate::world::{Update, World, turmhaus};
use relay::{
    ledger::Decision,
    outbox::{self, LowWaterMark, Receipt},
    outcome::{Failure, FailureClass, Outcome, Transition, decide},
};
use shared::message::Operation;
use std::{collections::HashSet, time::Duration};

const OPERATION: Operation = Operation::CreditorDebtUpdate;
const LEASE: Duration = Duration::from_secs(15);

async fn claim(world: &World, mark: &mut LowWaterMark, limit: i64) -> Vec<outbox::Claim> {
    let connection = world.context().await.pool.get().await.unwrap();
    outbox::claim(&connection, OPERATION, mark, limit, LEASE, "test").await.unwrap()
}

async fn finish(world: &World, mut batch: Vec<outbox::Finished>) -> Receipt {
    let connection = world.context().await.pool.get().await.unwrap();
    let mut receipt = Receipt::default();
    outbox::finish(&connection, &mut batch, usize::MAX, &mut receipt).await.unwrap();
    receipt
}

#[tokio::test]
async fn two_workers_never_hold_the_same_message() {
    let world = World::new().await;
    for _ in 0..40 {
        world.commit(Update::default()).await;
    }
    let (mut one, mut two) = (LowWaterMark::default(), LowWaterMark::default());
    let (first, second) = tokio::join!(claim(&world, &mut one, 30), claim(&world, &mut two, 30));
    let ids: HashSet<_> = first.iter().chain(&second).map(|claim| claim.id).collect();
    assert_eq!((first.len() + second.len(), ids.len()), (40, 40));
    assert!(claim(&world, &mut LowWaterMark::default(), 30).await.is_empty(), "all are leased");
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_changes_nothing() {
    let world = World::new().await;
    let email = world.commit(Update::default()).await;
    let lost = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);
    world.run("update outbox_messages set claimed_until = now() - interval '1 second'").await;
    let current = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);

    let mut late = lost.finish(Transition::Done(Outcome::HeldForReview), 1);
    late.decision = Some(decision(late.id(), email));
    assert!(finish(&world, vec![late]).await.committed.is_empty());
    assert_eq!(world.state(email).await, "waiting//0");
    assert_eq!(world.shows(email).await, "extracted/-/pending");
    assert_eq!(world.row("select count(*) from decisions").await.get::<_, i64>(0), 0);

    let id = current.id;
    assert_eq!(finish(&world, vec![current.give_back()]).await.committed, HashSet::from([id]));
    let row = world.row("select claim_count, unfinished_claims, claimed_by from outbox_messages").await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1), row.get::<_, Option<&str>>(2)), (3, 0, None));
}

fn decision(message_id: i64, email_id: i64) -> Decision {
    Decision {
        message_id,
        email_id,
        old_amount: None,
        new_amount: None,
        decision: "held_for_review",
        reason: "test".into(),
        candidates: Vec::new(),
        actor: "test".into(),
    }
}

#[tokio::test]
async fn a_crashed_workers_messages_come_back_when_the_lease_ends_even_below_the_mark() {
    let world = World::new().await;
    let first = world.commit(Update::default()).await;
    let crashed = claim(&world, &mut LowWaterMark::default(), 1).await;
    world.client(vec![turmhaus("b")]).await;
    assert_eq!(world.once().await.claimed, 0);
    drop(crashed);
    world.run("update outbox_messages set claimed_until = now() - interval '1 second'").await;
    world.once().await;
    assert_eq!(world.state(first).await, "done/applied/0");
    assert_eq!(world.row("select unfinished_claims from outbox_messages").await.get::<_, i32>(0), 0);
}

#[tokio::test]
async fn a_row_that_commits_late_with_a_low_id_is_not_lost() {
    let world = World::new().await;
    let mut mark = LowWaterMark::default();
    let mut slow = world.database.client().await;
    let slow_transaction = slow.transaction().await.unwrap();
    let late =
        "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key)
        values ('test', '1', 'creditor_debt_update', '{}', 'late') returning id";
    let late: i64 = slow_transaction.query_one(late, &[]).await.unwrap().get(0);
    for _ in 0..3 {
        world.commit(Update::default()).await;
        let batch = claim(&world, &mut mark, 1).await;
        assert!(batch[0].id > late);
        tokio::time::sleep(Duration::from_millis(250)).await; // longer than the mark's age, so that it moves past the late row
    }
    slow_transaction.commit().await.unwrap();
    let mut found = Vec::new();
    while found.is_empty() {
        found = claim(&world, &mut mark, 1).await; // a look below the mark comes within five seconds
    }
    assert_eq!(found[0].id, late);
}

#[tokio::test]
async fn counted_failures_wait_apart_and_the_last_one_is_dead_until_requeued() {
    let world = World::new().await;
    let email = world.commit(Update::default()).await;
    for attempt in 1..=5 {
        let claim = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);
        let transition = decide(Failure::new(FailureClass::Transient, "a rival wrote first"), claim.past);
        finish(&world, vec![claim.finish(transition, 0)]).await;
        let expected =
            if attempt < 5 { format!("waiting/transient/{attempt}") } else { "dead/transient/5".into() };
        assert_eq!(world.state(email).await, expected);
        assert_eq!(world.row("select sync_retry_count from incoming_emails").await.get::<_, i32>(0), attempt);
        let shown = if attempt < 5 { "extracted/-/failed" } else { "failed/-/failed" };
        assert_eq!(world.shows(email).await, shown);
        world.run("update outbox_messages set available_at = now() where deferred").await;
    }
    assert!(claim(&world, &mut LowWaterMark::default(), 1).await.is_empty());
}

#[tokio::test]
async fn deferred_rows_take_at_most_a_quarter_of_a_batch() {
    let world = World::new().await;
    for _ in 0..8 {
        world.commit(Update::default()).await;
    }
    world.run("update outbox_messages set deferred = true where id <= (select min(id) + 3 from outbox_messages)").await;
    let batch = claim(&world, &mut LowWaterMark::default(), 4).await;
    let deferred =
        world.row("select count(*) from outbox_messages where deferred and claimed_until is not null").await;
    assert_eq!((batch.len(), deferred.get::<_, i64>(0)), (4, 1));
}

#[tokio::test]
async fn a_finish_that_the_database_refuses_is_buried_alone() {
    let world = World::new().await;
    let mut emails = Vec::new();
    for _ in 0..7 {
        emails.push(world.commit(Update::default()).await);
    }
    let batch = claim(&world, &mut LowWaterMark::default(), 7).await;
    let culprit = batch[3].id;
    let finished = batch.into_iter().map(|claim| {
        let (id, email_id) = (claim.id, claim.email_id);
        let mut finished = claim.finish(Transition::Done(Outcome::HeldForReview), 1);
        let mut decision = decision(id, email_id);
        if id == culprit {
            decision.reason = String::new(); // the table's check refuses it
        }
        finished.decision = Some(decision);
        finished
    });
    let receipt = finish(&world, finished.collect()).await;
    assert_eq!((receipt.committed.len(), receipt.refused), (7, HashSet::from([culprit])));
    let counts = world
        .row(
            "select count(*) filter (where outcome = 'held_for_review'),
        count(*) filter (where dead_at is not null and error_class = 'finish_refused') from outbox_messages",
        )
        .await;
    assert_eq!((counts.get::<_, i64>(0), counts.get::<_, i64>(1)), (6, 1));
}

#[tokio::test]
async fn the_database_refuses_impossible_rows() {
    let world = World::new().await;
    world.commit(Update::default()).await;
    let impossible = [
        "update outbox_messages set outcome = 'applied'",
        "update outbox_messages set processed_at = now()",
        "update outbox_messages set dead_at = now()",
        "update outbox_messages set dead_at = now(), error_class = 'x', processed_at = now(), outcome = 'applied'",
        "update outbox_messages set processed_at = now(), outcome = 'guessed'",
        "update outbox_messages set processed_at = now(), outcome = 'applied', claimed_until = now(), claimed_by = 'x'",
        "update outbox_messages set claimed_until = now()",
        "update outbox_messages set payload = jsonb_build_object('text', repeat('x', 5000))",
        "update incoming_emails set sync_status = 'synced'",
        "update incoming_emails set sync_status = 'failed'",
        "update incoming_emails set match_status = 'needs_review'",
        "insert into creditor_debts (client_id, entry_key, amount, stamp, message_id, email_id) values ('a', 'b', 'NaN', 1, 1, 1)",
        "insert into creditor_debts (client_id, entry_key, amount, stamp, message_id, email_id) values ('a', 'b', -1, 1, 1, 1)",
    ];
    for statement in impossible {
        let error = world.sql.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().map(|code| code.code()), Some("23514"), "{statement}");
    }
    world.run("insert into decisions (email_id, message_id, decision, reason, actor) select id, 1, 'applied', 'x', 'x' from incoming_emails").await;
    assert!(world.sql.batch_execute("update decisions set reason = 'y'").await.is_err(), "append-only");
}

#[tokio::test]
async fn the_normal_path_is_two_hot_updates_of_the_message() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    // Three rows in three versions each fit on one page, so that nothing hangs on when old versions can be pruned.
    for _ in 0..3 {
        world.commit(Update::default()).await;
    }
    world.once().await;
    world.run("select pg_stat_force_next_flush()").await;
    crate::outages::until(|| async {
        // The relay's own connections report their counts when they end.
        world.run("select pg_stat_clear_snapshot()").await;
        world
            .row("select n_tup_upd >= 6 from pg_stat_user_tables where relname = 'outbox_messages'")
            .await
            .get(0)
    })
    .await;
    let row = world
        .row("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'outbox_messages'")
        .await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (6, 6));
}

#[tokio::test]
async fn a_start_beside_many_finished_rows_finds_what_waits_and_what_comes_back_below() {
    let world = World::new().await;
    world
        .run(
            "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, processed_at, outcome)
            select 'test', '1', 'creditor_debt_update', '{}', 'old' || n, now(), 'applied' from generate_series(1, 120000) n",
        )
        .await;
    world.commit(Update::default()).await;
    let mut mark = LowWaterMark::default();
    assert_eq!(claim(&world, &mut mark, 10).await.len(), 1);
    // Another relay gives one back, far below our mark.
    world.run("update outbox_messages set processed_at = null, outcome = null where idempotency_key = 'old70000'").await;
    let mut found = Vec::new();
    while found.is_empty() {
        found = claim(&world, &mut mark, 10).await; // a sweep begins within five seconds
    }
    let old: i64 =
        world.row("select id from outbox_messages where idempotency_key = 'old70000'").await.get(0);
    assert_eq!(found[0].id, old);
}

#[tokio::test]
async fn a_message_that_three_workers_did_not_finish_runs_alone_and_after_six_it_is_dead() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    world.run("update outbox_messages set claim_count = 3, unfinished_claims = 3").await;
    for _ in 0..3 {
        world.commit(Update::default()).await;
    }
    let alone = claim(&world, &mut LowWaterMark::default(), 10).await;
    assert_eq!((alone.len(), alone[0].is_suspect(), alone[0].is_condemned()), (1, true, false));
    world.run("update outbox_messages set claimed_until = now() - interval '1 second' where claimed_until is not null").await;

    // It waits until nothing else is in flight in its process.
    let context = world.context().await;
    let other_lane = context.in_flight().await;
    let running = world.try_once(&context);
    let watch = async {
        let claimed = "select claim_count = 5 from outbox_messages order by id limit 1";
        crate::outages::until(|| async { world.row(claimed).await.get(0) }).await;
        assert_eq!(world.amount("b").await, None);
        drop(other_lane);
    };
    let ((summary, end), ()) = tokio::join!(running, watch);
    assert_eq!((summary.claimed, end), (4, Ok(())));
    assert_eq!(world.state(email).await, "done/applied/0");
    assert_eq!(world.row("select max(unfinished_claims) from outbox_messages").await.get::<_, i32>(0), 0);

    let crasher = world.commit(Update::default()).await;
    world
        .run("update outbox_messages set claim_count = 6, unfinished_claims = 6 where processed_at is null")
        .await;
    let next = world.commit(Update::of("2000", "2026-03-01T00:00:00Z")).await;
    let summary = world.once().await;
    assert_eq!((summary.dead, summary.applied), (1, 1));
    assert_eq!(world.state(crasher).await, "dead/crashed_worker/1");
    assert_eq!(world.state(next).await, "done/applied/0");
}

/// As after a restore of Postgres to an earlier point, under a relay that goes on: the sequence gives the id of the lost message again.
#[tokio::test]
async fn a_claim_of_before_a_restore_does_not_end_the_message_that_has_its_id_now() {
    let mut world = World::new().await;
    let backup = world.backup().await;
    world.commit(Update::default()).await;
    let lost = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);
    world.run("update outbox_messages set claimed_until = null, claimed_by = null, claim_count = 0, unfinished_claims = 0").await;
    let other = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);
    world.restore(&backup).await;
    let email = world.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    let current = claim(&world, &mut LowWaterMark::default(), 1).await.remove(0);
    assert_eq!((lost.id, lost.email_id), (current.id, current.email_id), "both are given out again");

    let late = lost.finish(Transition::Done(Outcome::Applied), 1);
    assert!(finish(&world, vec![late]).await.committed.is_empty());
    let connection = world.context().await.pool.get().await.unwrap();
    assert!(outbox::release(&connection, &[other.give_back()]).await.unwrap().is_empty());
    assert_eq!(world.state(email).await, "waiting//0");
    assert_eq!(world.shows(email).await, "extracted/-/pending");
    let id = current.id;
    assert_eq!(finish(&world, vec![current.give_back()]).await.committed, HashSet::from([id]));
}
