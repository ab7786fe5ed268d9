//! What maintenance removes, and what it must leave.

use crate::world::{Update, World, turmhaus};
use relay::maintenance::{Removed, pass};
use std::time::Duration;

const RETENTION: Duration = Duration::from_secs(30 * 86_400);

#[tokio::test]
async fn only_what_ended_well_long_ago_and_needs_nobody_leaves() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let applied = world.commit(Update::of("100", "2026-01-01T00:00:00Z")).await;
    let recent = world.commit(Update::of("200", "2026-01-02T00:00:00Z")).await;
    let held = world.commit(Update::of("150", "2026-01-03T00:00:00Z")).await;
    let dead = world.commit(Update { aktenzeichen: "2024/999", ..Update::default() }).await;
    world.once().await;
    let waiting = world.commit(Update::of("300", "2026-01-04T00:00:00Z")).await;
    assert_eq!(world.state(held).await, "done/held_for_review/0");
    world.run("update outbox_messages set deferred = false, dead_at = now() where error_class = 'target_missing'").await;
    let pool = world.context().await.pool;
    assert_eq!(pass(&pool, RETENTION).await, Ok(Removed { messages: 0, keys: 0 }));

    let age =
        "created_at = created_at - interval '31 days', processed_at = processed_at - interval '31 days'";
    world.run(&format!("update outbox_messages set {age} where aggregate_id <> '{recent}'")).await;
    world
        .run(
            "insert into idempotency_keys (key, fingerprint, result, created_at, expires_at)
            select 'api:' || n, sha256(''), '{\"email_id\": 1}', now() - interval '2 days',
                now() + (n - 1500) * interval '1 second' from generate_series(1, 1600) n",
        )
        .await;
    let mut rival = world.database.client().await;
    let transaction = rival.transaction().await.unwrap();
    transaction.execute("select pg_advisory_xact_lock(7355608130)", &[]).await.unwrap();
    assert_eq!(pass(&pool, RETENTION).await, Ok(Removed { messages: 0, keys: 0 }), "another relay is at it");
    transaction.rollback().await.unwrap();

    let removed = pass(&pool, RETENTION).await.unwrap();
    assert_eq!(removed.messages, 1);
    assert!(removed.keys >= 1500 && removed.keys < 1600, "in more than one batch: {}", removed.keys);
    let left = world.row("select array_agg(aggregate_id::bigint order by id) from outbox_messages").await;
    assert_eq!(left.get::<_, Vec<i64>>(0), [recent, held, dead, waiting]);
    assert_eq!(world.shows(applied).await, "completed/auto_matched/synced");

    // Once a person has decided, it may leave too.
    world.run(&format!("update incoming_emails set match_status = 'auto_matched' where id = {held}")).await;
    assert_eq!(pass(&pool, RETENTION).await.map(|removed| removed.messages), Ok(1));
}
