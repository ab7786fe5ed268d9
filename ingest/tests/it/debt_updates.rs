//! A ready debt update is stored as the mail it stands for, with a message that the relay can carry out at once.

use crate::harness::*;
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::{
    idempotency_key::generate_idempotency_key,
    message::{CreditorDebtUpdate, FIRST_STAMP_SQL, Operation, Origin, Revision, Stamp},
};
use testkit::Database;

#[tokio::test]
async fn a_debt_update_is_stored_with_its_extraction_and_the_message_for_mongodb() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let headers = vec![
        ("Authorization", format!("Bearer {TOKEN}")),
        ("Idempotency-Key", "k".into()),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    ];
    let id = service.post(DEBT_UPDATES, headers, debt_update("1027.5")).await.email_id("accepted");
    let row = database
        .client()
        .await
        .query_one(
            "select e.source, e.webhook_id, e.from_email, e.ticket_id, e.processing_status, e.idempotency_key, m.idempotency_key,
                m.aggregate_type, m.aggregate_id, m.operation, m.traceparent, e.extracted_data, m.payload
            from incoming_emails e, outbox_messages m",
            &[],
        )
        .await
        .unwrap();
    let text = |column: usize| row.get::<_, String>(column);
    assert_eq!(
        [text(0), text(1), text(2), text(3), text(4)],
        ["api", "k", "inkasso@bank.example", "7", "extracted"]
    );
    let key_payload = json!({"client_name": "Mößbauer, Jürgen", "creditor_email": "inkasso@bank.example", "amount": "1027.50"});
    assert_eq!(text(5), generate_idempotency_key("creditor_debt_update", &id.to_string(), &key_payload));
    assert_eq!(text(6), Operation::CreditorDebtUpdate.key(id, Revision::FIRST));
    assert_eq!(
        [text(7), text(8), text(9)],
        ["creditor_debt_update", &id.to_string(), "creditor_debt_update"]
    );
    let traceparent = text(10);
    assert!(
        traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
        "the caller's trace: {traceparent}"
    );
    assert!(!traceparent.contains("00f067aa0ba902b7"), "at a place of our own: {traceparent}");
    let extracted = json!({
        "is_creditor_reply": true, "client_name": "Mößbauer, Jürgen", "client_aktenzeichen": "2024/118", "creditor_name": "Bank AG",
        "debt_amount": "1027.50", "reference_numbers": ["A-1", "B 2"], "confidence": 0.9, "summary": "Restforderung",
    });
    assert_eq!(row.get::<_, Value>(11), extracted);
    let received_at: Timestamp = "2026-02-17T08:14:22Z".parse().unwrap();
    let expected = CreditorDebtUpdate {
        email_id: id,
        client_name: Some("Mößbauer, Jürgen".into()),
        client_aktenzeichen: Some("2024/118".into()),
        creditor_email: "inkasso@bank.example".into(),
        creditor_name: Some("Bank AG".into()),
        new_debt_amount: Some("1027.50".parse().unwrap()),
        response_text: Some("Restforderung".into()),
        reference_numbers: vec!["A-1".into(), "B 2".into()],
        extraction_confidence: Some(0.9),
        received_at,
        stamp: Stamp::new(received_at, id, Revision::FIRST).unwrap(),
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
        expected: None,
        hold: None,
    };
    assert_eq!(row.get::<_, Value>(12), serde_json::to_value(&expected).unwrap());
}

#[tokio::test]
async fn the_smallest_debt_update_has_no_confidence_and_its_time_of_arrival() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let before = Timestamp::now();
    let body =
        r#"{"client_name": "A B", "creditor_email": "a@b.example", "new_debt_amount": 999999999999.99}"#;
    let id = service.debt_update("k", body).await.email_id("accepted");
    let payload: Value =
        database.client().await.query_one("select payload from outbox_messages", &[]).await.unwrap().get(0);
    for name in ["client_aktenzeichen", "creditor_name", "response_text", "extraction_confidence"] {
        assert_eq!(payload.get(name), Some(&Value::Null), "{name}");
    }
    assert_eq!((payload.get("reference_numbers"), payload.get("decided_by")), (Some(&json!([])), None));
    let message: CreditorDebtUpdate = serde_json::from_value(payload).unwrap();
    assert_eq!(message.new_debt_amount, Some(shared::money::Amount::MAX));
    assert_eq!((message.extraction_confidence, message.creditor_name), (None, None));
    assert!(
        message.received_at.as_microsecond() >= before.as_microsecond()
            && message.received_at <= Timestamp::now()
    );
    assert_eq!(message.stamp, Stamp::new(message.received_at, id, Revision::FIRST).unwrap());
}

#[tokio::test]
async fn what_is_out_of_bounds_is_a_400_that_points_at_the_field() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let with = |field: &str, value: &str| {
        let mut body: Value = serde_json::from_str(&debt_update("1")).unwrap();
        body[field] = serde_json::from_str(value).unwrap();
        body.to_string()
    };
    for (field, value) in [
        ("new_debt_amount", "\"1000000000000.00\""),
        ("new_debt_amount", "-1"),
        ("new_debt_amount", "1.234"),
        ("new_debt_amount", "1e999999999999"),
        ("new_debt_amount", "\"1.234,56\""),
        ("new_debt_amount", "\"1\\u0000\""),
        ("new_debt_amount", "null"),
        ("client_name", "\"\""),
        ("client_name", "7"),
        ("creditor_email", "\"nobody\""),
        ("extraction_confidence", "1.5"),
        ("extraction_confidence", "\"high\""),
        ("extraction_confidence", "-1e999999"),
        ("reference_numbers", "{}"),
        ("response_text", "[]"),
        ("received_at", "true"),
        ("creditor_position", "3"),
        ("new_debt_amount ", "3"),
    ] {
        let answer = service.debt_update("k", &with(field, value)).await;
        assert_eq!(answer.pointers(), [format!("/{field}")], "{field} {value}");
    }
    // Characters that JSON writes with six bytes fill the outbox's 4 KiB long before their number is too high.
    let escaped = with("response_text", &json!("\u{1}".repeat(1000)).to_string());
    assert_eq!(service.debt_update("k", &escaped).await.pointers(), ["/response_text"]);
    let twice = debt_update("1").replacen('{', "{\"client_name\": \"Other\",", 1);
    assert_eq!(service.debt_update("k", &twice).await.pointers(), ["/client_name"]);
    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
}

#[tokio::test]
async fn the_longest_debt_update_that_is_accepted_fits_the_outbox() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    // Grows until the answer is the 400: the CHECK of the table never shows as a 500.
    for length in (1500..2000).step_by(20).chain([2000]) {
        let mut body: Value = serde_json::from_str(&debt_update("1")).unwrap();
        body["response_text"] = "ä\"".repeat(length / 2).into();
        body["extraction_confidence"] = 1.234_567_890_123_456_7e-6.into();
        body["reference_numbers"] =
            json!((0..20).map(|number| format!("AZ \"{number}\"")).collect::<Vec<_>>());
        let answer = service.debt_update(&format!("k{length}"), &body.to_string()).await;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    }
    let client = database.client().await;
    assert!(
        count(&client, "select max(octet_length(payload::text))::bigint from outbox_messages").await
            > 4000 - 200
    );
}

#[tokio::test]
async fn the_stamp_that_postgres_computes_is_the_stamp_of_rust() {
    let client = Database::new().await;
    let client = client.client().await;
    let query = format!(
        "select {FIRST_STAMP_SQL} from (select $1::timestamptz as received_at, $2::bigint as id) given"
    );
    for time in [
        "2015-01-01T00:00:00Z",
        "2026-02-17T08:14:22.123456Z",
        "2026-02-17T08:14:22.999999Z",
        "2026-02-17T08:14:22.0005Z",
        "2099-12-31T23:59:59.999Z",
    ] {
        for id in [1_i64, 15, 16, 65_535, 65_536, 65_537, i64::MAX] {
            let time: Timestamp = time.parse().unwrap();
            let computed: String = client.query_one(&query, &[&time, &id]).await.unwrap().get(0);
            assert_eq!(computed, Stamp::new(time, id, Revision::FIRST).unwrap().to_string(), "{time} {id}");
        }
    }
}
