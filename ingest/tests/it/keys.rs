//! Once stored is once stored, whatever the order, the number and the time of the deliveries.

use crate::harness::*;
use ingest::{
    commit::{AnswerKind, CommitError, CommitLimits, CommitRequest, FirstMessage, commit},
    request_key,
    source::zendesk,
};
use serde_json::json;
use std::{collections::HashSet, time::Duration};
use testkit::Database;
use tokio::task::JoinSet;

#[tokio::test]
async fn fifty_deliveries_at_once_are_one_mail_one_key_one_message_and_fifty_times_200() {
    let database = Database::new().await;
    let service = std::sync::Arc::new(Service::over(&database).await);
    let mut deliveries = JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        deliveries.spawn(async move { service.zendesk(&mail("w1")).await });
    }
    let answers = deliveries.join_all().await;
    let ids: HashSet<_> = answers.iter().map(|answer| answer.json()["email_id"].as_i64()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.json()["status"] == "accepted").count(), 1);
    assert_eq!(ids.len(), 1);
    let client = database.client().await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
    assert_whole(&client).await;
}

#[tokio::test]
async fn fifty_deliveries_under_fifty_keys_are_one_mail_still() {
    let database = Database::new().await;
    let service = std::sync::Arc::new(Service::over(&database).await);
    let mut deliveries = JoinSet::new();
    for number in 0..50 {
        let service = service.clone();
        deliveries
            .spawn(async move { service.zendesk_with_key(&format!("key-{number}"), &mail("w1")).await });
    }
    let answers = deliveries.join_all().await;
    let ids: HashSet<_> = answers.iter().map(|answer| answer.json()["email_id"].as_i64()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(ids.len(), 1);
    let client = database.client().await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
}

#[tokio::test]
async fn the_same_key_with_other_content_is_a_422_and_the_first_stands() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let id = service.zendesk_with_key("k", &mail("w1")).await.email_id("accepted");
    service.zendesk_with_key("k", &mail("w2")).await.is_problem(422, "idempotency-key-reused");
    service.zendesk_with_key("\"k\"", &mail("w2")).await.is_problem(422, "idempotency-key-reused");
    // Without a header the provider's id is the key: the same id with other content is no repeat either.
    let changed = mail("w1").replace("4.812,37", "9.999,99");
    service.zendesk(&changed).await.is_problem(422, "idempotency-key-reused");
    assert_eq!(service.zendesk_with_key("\"k\"", &mail("w1")).await.email_id("duplicate"), id);
    service.debt_update("d", &debt_update("1")).await.email_id("accepted");
    service.debt_update("d", &debt_update("2")).await.is_problem(422, "idempotency-key-reused");
    // Another source has its own keys.
    service.debt_update("k", &debt_update("3")).await.email_id("accepted");
    assert_eq!(rows(&database.client().await).await, [3, 3, 3]);
}

#[tokio::test]
async fn without_any_id_the_content_is_the_key() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = json!({"ticket_id": "1", "from_email": "a@b.example"}).to_string();
    let id = service.zendesk(&body).await.email_id("accepted");
    assert_eq!(service.zendesk(&body).await.email_id("duplicate"), id);
    assert_ne!(service.zendesk(&body.replace("\"1\"", "\"2\"")).await.email_id("accepted"), id);
    let row = database
        .client()
        .await
        .query_one(
            "select min(length(webhook_id)), min(length(key)) from incoming_emails, idempotency_keys",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (64, 64 + "zendesk:".len() as i32));
}

#[tokio::test]
async fn an_expired_key_is_taken_over_by_new_content() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let client = database.client().await;
    let first = service.zendesk_with_key("k", &mail("w1")).await.email_id("accepted");
    expire(&client).await;
    let second = service.zendesk_with_key("k", &mail("w2")).await.email_id("accepted");
    assert_ne!(first, second);
    assert_eq!(rows(&client).await, [2, 1, 2]);
    assert_eq!(
        count(
            &client,
            "select (result ->> 'email_id')::bigint from idempotency_keys where expires_at > now()"
        )
        .await,
        second
    );
    service.zendesk_with_key("k", &mail("w1")).await.is_problem(422, "idempotency-key-reused");
    assert_eq!(service.zendesk_with_key("k", &mail("w2")).await.email_id("duplicate"), second);
    assert_whole(&client).await;
}

#[tokio::test]
async fn an_expired_key_is_taken_over_by_one_of_many() {
    let database = Database::new().await;
    let service = std::sync::Arc::new(Service::over(&database).await);
    let client = database.client().await;
    service.zendesk_with_key("k", &mail("w1")).await.email_id("accepted");
    expire(&client).await;
    let mut deliveries = JoinSet::new();
    for _ in 0..20 {
        let service = service.clone();
        deliveries.spawn(async move { service.zendesk_with_key("k", &mail("w2")).await });
    }
    let answers = deliveries.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.json()["status"] == "accepted").count(), 1);
    assert_eq!(rows(&client).await, [2, 1, 2]);
}

#[tokio::test]
async fn a_late_repeat_is_found_by_the_providers_id_when_its_key_has_expired_or_gone() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let client = database.client().await;
    let id = service.zendesk(&mail("w1")).await.email_id("accepted");
    let update = service.debt_update("d", &debt_update("1")).await.email_id("accepted");
    for lose in [
        "update idempotency_keys set created_at = now() - interval '2 s', expires_at = now() - interval '1 s'",
        "delete from idempotency_keys",
    ] {
        client.batch_execute(lose).await.unwrap();
        assert_eq!(service.zendesk(&mail("w1")).await.email_id("duplicate"), id);
        assert_eq!(service.zendesk_with_key("other", &mail("w1")).await.email_id("duplicate"), id);
        assert_eq!(service.debt_update("d", &debt_update("1")).await.email_id("duplicate"), update);
        let changed = mail("w1").replace("4.812,37", "9.999,99");
        service.zendesk(&changed).await.is_problem(422, "idempotency-key-reused");
        service.debt_update("d", &debt_update("2")).await.is_problem(422, "idempotency-key-reused");
    }
    assert_eq!(rows(&client).await[0], 2);
    assert_eq!(rows(&client).await[2], 2);
}

#[tokio::test]
async fn a_repeat_of_a_mail_whose_body_is_not_known_is_a_duplicate_whatever_it_says() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let client = database.client().await;
    // As `relay import-legacy` writes it.
    let imported = "insert into incoming_emails (source, webhook_id, from_email, received_at, legacy_id)
        values ('zendesk', 'w1', 'a@b.example', now(), 7) returning id";
    let id: i64 = client.query_one(imported, &[]).await.unwrap().get(0);
    assert_eq!(service.zendesk(&mail("w1")).await.email_id("duplicate"), id);
    assert_eq!(service.zendesk_with_key("other", &mail("w1")).await.email_id("duplicate"), id);
    let key = "insert into idempotency_keys (key, result, expires_at)
        values ('zendesk:old', jsonb_build_object('email_id', $1::bigint), now() + interval '1 hour')";
    client.execute(key, &[&id]).await.unwrap();
    assert_eq!(service.zendesk_with_key("old", &mail("w9")).await.email_id("duplicate"), id);
    let mails: i64 = client.query_one("select count(*) from incoming_emails", &[]).await.unwrap().get(0);
    assert_eq!(mails, 1);
}

#[tokio::test]
async fn a_rival_that_does_not_end_is_a_409_and_one_that_rolls_back_leaves_the_key_to_us() {
    let database = Database::new().await;
    let mut impatient = config(&database.url);
    impatient.limits.lock_wait = Duration::from_millis(50);
    let impatient = Service::start(impatient).await;
    let service = Service::over(&database).await;
    let rival = Rival::holds(&database, "w1").await;
    impatient.zendesk(&mail("w1")).await.is_problem(409, "idempotency-in-flight");
    let waiting = tokio::spawn(async move { service.zendesk(&mail("w1")).await });
    rival.is_waited_for_by(1).await;
    rival.rolls_back().await;
    waiting.await.unwrap().email_id("accepted");
    assert_eq!(rows(&database.client().await).await, [1, 1, 1]);
}

#[tokio::test]
async fn the_lock_wait_ends_with_its_transaction_and_never_stays_on_the_connection() {
    let database = Database::new().await;
    let client = pooled(&database).await;
    let body = mail("w1");
    let arrival = jiff::Timestamp::now();
    let request = CommitRequest {
        source: "zendesk",
        request_key: "k".into(),
        fingerprint: request_key::fingerprint(body.as_bytes()),
        raw: body.clone().into(),
        email: zendesk::parse(body.as_bytes(), arrival).unwrap(),
        first: FirstMessage::Extraction,
        traceparent: shared::trace::TraceParent::root(),
    };
    let limits = CommitLimits { lock_wait: Duration::from_millis(50), key_lifetime: Duration::from_secs(60) };
    let lock_timeout =
        || async { client.query_one("show lock_timeout", &[]).await.unwrap().get::<_, String>(0) };

    let stored = commit(&client, &request, limits).await.unwrap();
    assert_eq!((stored.kind, lock_timeout().await), (AnswerKind::Accepted, "0".into()));
    let again = commit(&client, &request, limits).await.unwrap();
    assert_eq!(
        (again.kind, again.email_id, lock_timeout().await),
        (AnswerKind::Duplicate, stored.email_id, "0".into())
    );
    let rival = Rival::holds(&database, "held").await;
    let held = CommitRequest { request_key: "held".into(), ..request };
    assert!(matches!(commit(&client, &held, limits).await, Err(CommitError::RivalInFlight)));
    assert_eq!(lock_timeout().await, "0");
    rival.rolls_back().await;
}

#[tokio::test]
async fn the_key_header_has_one_meaning_quoted_or_bare_and_is_refused_when_it_is_no_key() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let id = service.debt_update("abc", &debt_update("1")).await.email_id("accepted");
    assert_eq!(service.debt_update("\"abc\"", &debt_update("1")).await.email_id("duplicate"), id);
    service.debt_update(&"x".repeat(255), &debt_update("2")).await.email_id("accepted");
    for key in [&"x".repeat(256), "", "\"\"", "\"open", "ä"] {
        service.debt_update(key, &debt_update("3")).await.is_problem(400, "idempotency-key-malformed");
        service.zendesk_with_key(key, &mail("w9")).await.is_problem(400, "idempotency-key-malformed");
    }
    let without = vec![("Authorization", format!("Bearer {TOKEN}"))];
    service.post(DEBT_UPDATES, without, debt_update("3")).await.is_problem(400, "idempotency-key-missing");
    assert_eq!(rows(&database.client().await).await, [2, 2, 2]);
}

async fn expire(client: &tokio_postgres::Client) {
    let statement = "update idempotency_keys set created_at = now() - interval '2 s', expires_at = now() - interval '1 s'";
    client.batch_execute(statement).await.unwrap();
}
