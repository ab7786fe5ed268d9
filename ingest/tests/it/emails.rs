//! Where a mail stands, and nothing personal.

use crate::harness::*;
use ingest::status::STATUS;
use serde_json::{Value, json};
use testkit::Database;
use tokio_postgres::types::Type;

#[tokio::test]
async fn a_new_mail_waits_for_its_extraction() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let id = service.zendesk(&mail("w1")).await.email_id("accepted");
    let answer = service.get(&format!("/v1/emails/{id}")).await;
    assert_eq!(answer.status, 200);
    let mut status = answer.json();
    let created_at = status["steps"][0]["created_at"].take();
    assert!(created_at.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(
        status,
        json!({
            "email_id": id, "source": "zendesk", "received_at": "2026-02-17T08:14:22Z", "processing_status": "received",
            "match_status": null, "sync_status": "pending", "sync_error": null, "attempts": 0, "outcome": null,
            "steps": [{
                "operation": "email_extraction", "state": "waiting", "outcome": null, "attempts": 0, "error_class": null,
                "error": null, "created_at": null, "processed_at": null, "dead_at": null, "decisions": [],
            }],
        })
    );
    assert_eq!(service.get(&format!("/api/v1/zendesk/status/{id}")).await.body, answer.body);
    for canary in ["quarkstein", "Quarkstein", "4.812", "542902", "48066"] {
        assert!(!String::from_utf8_lossy(&answer.body).contains(canary), "{canary}");
    }
}

#[tokio::test]
async fn attempts_and_outcome_are_those_of_the_latest_debt_update() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let id = service.zendesk(&mail("w1")).await.email_id("accepted");
    let other = service.zendesk(&mail("w2")).await.email_id("accepted");
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "update outbox_messages set processed_at = now(), outcome = 'extracted', retry_count = 1 where aggregate_id = '{id}';
            insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, retry_count, processed_at, outcome, dead_at, error_class) values
                ('creditor_debt_update', '{id}', 'creditor_debt_update', '{{}}', 'creditor_debt_update:{id}:0', 5, null, null, now(), 'validation'),
                ('creditor_debt_update', '{id}', 'creditor_debt_update', '{{}}', 'creditor_debt_update:{id}:1', 2, now(), 'applied', null, null),
                ('creditor_debt_update', '{other}', 'creditor_debt_update', '{{}}', 'creditor_debt_update:{other}:15', 3, null, null, null, 'unavailable');"
        ))
        .await
        .unwrap();
    let status = service.get(&format!("/v1/emails/{id}")).await.json();
    assert_eq!((&status["attempts"], &status["outcome"]), (&json!(2), &json!("applied")));
    let steps: Vec<_> = status["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["operation"].as_str().unwrap(), step["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        steps,
        [("email_extraction", "done"), ("creditor_debt_update", "dead"), ("creditor_debt_update", "done")]
    );
    let status = service.get(&format!("/v1/emails/{other}")).await.json();
    assert_eq!((&status["attempts"], &status["outcome"]), (&json!(3), &Value::Null));
    let held = "insert into decisions (email_id, message_id, new_amount, decision, reason, actor)
        select aggregate_id::bigint, id, 4812.37, 'held_for_review', 'the mail states no amount', 'Frau Kundig' from outbox_messages
        where operation = 'creditor_debt_update' and retry_count = 3";
    client.batch_execute(held).await.unwrap();
    let answer = service.get(&format!("/v1/emails/{other}")).await;
    let decision = &answer.json()["steps"][1]["decisions"][0];
    assert_eq!(
        (&decision["decision"], &decision["reason"]),
        (&json!("held_for_review"), &json!("the mail states no amount"))
    );
    let of_a_person = "insert into decisions (email_id, message_id, decision, reason, actor)
        select email_id, message_id, 'accepted', 'Herr Adler hat angerufen', 'relay' from decisions union all
        select email_id, message_id, 'rejected', 'Frau Adler hat angerufen', 'relay' from decisions";
    client.batch_execute(of_a_person).await.unwrap();
    let answer = service.get(&format!("/v1/emails/{other}")).await;
    let decisions = answer.json()["steps"][1]["decisions"].clone();
    assert_eq!(
        (&decisions[1]["decision"], &decisions[2]["decision"]),
        (&json!("accepted"), &json!("rejected"))
    );
    assert_eq!((decisions[1].get("reason"), decisions[2].get("reason")), (None, None));
    for canary in ["4812", "Kundig", "Adler"] {
        assert!(!String::from_utf8_lossy(&answer.body).contains(canary), "{canary}");
    }
    client.batch_execute("delete from outbox_messages").await.unwrap();
    let status = service.get(&format!("/v1/emails/{id}")).await.json();
    assert_eq!(
        (&status["attempts"], &status["outcome"], &status["steps"]),
        (&json!(0), &Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn the_messages_are_found_through_the_index() {
    let database = Database::new().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key)
                select 'incoming_email', n::text, 'email_extraction', '{}', 'email_extraction:' || n || ':0' from generate_series(1, 50000) n;
            analyze outbox_messages",
        )
        .await
        .unwrap();
    let plan = client
        .query_typed(
            &format!("explain {STATUS}"),
            &[(&17_i64, Type::INT8), (&shared::message::Operation::possible_keys(17), Type::TEXT_ARRAY)],
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.join("\n").contains("outbox_messages_idempotency_key_key"), "{plan:?}");
}

#[tokio::test]
async fn an_unknown_id_is_a_404_and_a_stranger_learns_nothing() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    for id in ["1", "0", "-1", "+1", "x", "99999999999999999999", "1%20"] {
        service.get(&format!("/v1/emails/{id}")).await.is_problem(404, "unknown-email");
    }
    let id = service.zendesk(&mail("w1")).await.email_id("accepted");
    let request = hyper::Request::get(format!("/v1/emails/{id}")).body(Default::default()).unwrap();
    send(service.address, request).await.is_problem(401, "token-invalid");
}
