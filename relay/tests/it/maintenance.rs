//! What maintenance removes, and what it must leave.

use crate::world::{Update, World, turmhaus};
use relay::maintenance::{Removed, pass, texts};
use serde_json::json;
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

#[tokio::test]
async fn texts_leave_after_their_retention_and_only_where_nothing_about_the_mail_is_open() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let applied = world.commit(Update::of("100", "2026-01-01T00:00:00Z")).await;
    let recent = world.commit(Update::of("200", "2026-01-02T00:00:00Z")).await;
    let held = world.commit(Update::of("150", "2026-01-03T00:00:00Z")).await;
    let dead = world.commit(Update::default()).await;
    let spam = world.email("a@b.example", "2026-01-03T00:00:00Z".parse().unwrap()).await;
    world.run(&format!("update outbox_messages set dead_at = now(), error_class = 'permanent' where aggregate_id = '{dead}';
        update incoming_emails set processing_status = 'failed', sync_status = 'failed', sync_error = 'x', processed_at = now() where id = {dead};
        update incoming_emails set processing_status = 'not_creditor_reply', sync_status = 'not_applicable', processed_at = now() where id = {spam}")).await;
    world.once().await;
    let waiting = world.commit(Update::of("300", "2026-01-04T00:00:00Z")).await;
    let data = json!({ "is_creditor_reply": true, "client_aktenzeichen": "2024/118", "debt_amount": "100.00", "summary": "ein Satz" });
    let text = "update incoming_emails set subject = 's', from_name = 'n', body_text = 'b', body_html = 'h', raw = 'r', cleaned_body = 'c',
        attachments = '[]', headers = '{}', extracted_data = $1";
    world.may_rewrite_mails().await;
    world.sql.execute(text, &[&data]).await.unwrap();
    let pool = world.context().await.pool;
    let retention = Duration::from_secs(90 * 86_400);
    assert_eq!(texts::pass(&pool, retention).await, Ok(0), "all is young");
    world.run(&format!("update incoming_emails set processed_at = processed_at - interval '91 days', created_at = created_at - interval '91 days'
        where id <> {recent}")).await;
    assert_eq!(texts::pass(&pool, retention).await, Ok(2));
    assert_eq!(texts::pass(&pool, retention).await, Ok(0));
    let removed = world
        .row("select array_agg(id order by id) from incoming_emails where text_removed_by = 'retention'")
        .await;
    assert_eq!(removed.get::<_, Vec<i64>>(0), [applied, spam]);
    let left = world.row("select count(*) from incoming_emails where num_nulls(subject, from_name, body_text, body_html, raw, cleaned_body, attachments, headers) = 0").await;
    assert_eq!(left.get::<_, i64>(0), 4, "{recent}, {held}, {dead}, {waiting}");
    let kept = world.row(&format!("select extracted_data from incoming_emails where id = {applied}")).await;
    let mut wanted = data;
    wanted.as_object_mut().unwrap().remove("summary");
    assert_eq!(kept.get::<_, serde_json::Value>(0), wanted);

    // What was read is enough to bring the amount back, and the mail's way is still told.
    let id = applied.to_string();
    assert_eq!(world.json_of(&["replay", "--email", &id]).await["enqueued"], 1);
    let told = world.relay(&["explain", &id]).await.1;
    assert!(told.contains("its text was removed (retention)"), "{told}");
    // A person has settled the dead letter: its mail is over too.
    world.json_of(&["dead-letters", "discard", "4", "--reason", "x"]).await;
    assert_eq!(texts::pass(&pool, retention).await, Ok(1));
    // What nobody has read cannot be read any more, and nothing is made up.
    world.run(&format!("update incoming_emails set extracted_data = null where id = {dead}")).await;
    let left = world.json_of(&["replay", "--email", &dead.to_string()]).await;
    assert!(left["mails"][0]["skipped"].as_str().unwrap().contains("text was removed on"), "{left}");
    world.message("email_extraction", dead, json!({ "email_id": dead })).await;
    world.once().await;
    let end =
        world.row("select error_message from outbox_messages where operation = 'email_extraction'").await;
    assert_eq!(end.get::<_, &str>(0), "the text of the mail was removed");
}

#[tokio::test]
async fn messages_may_not_stay_longer_than_their_mails() {
    let world = World::new().await;
    let check = async |name: &str, value: &str| {
        let output =
            world.program(&world.mongo.url, &["check-config"]).env(name, value).output().await.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = check("RELAY_MAIL_RETENTION_DAYS", "29").await;
    assert!(code == 64 && said.contains("RELAY_RETENTION_DAYS must not be more"), "{said}");
    assert_eq!(check("RELAY_MAIL_RETENTION_DAYS", "0").await.0, 64);
    assert_eq!(check("RELAY_MAIL_RETENTION_DAYS", "").await.0, 0);
}
