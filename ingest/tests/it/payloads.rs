//! Whatever an authentic sender writes is stored or refused with a reason: never a 500, never a panic.

use crate::harness::*;
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::Database;

#[tokio::test]
async fn malformed_bodies_are_400_and_nothing_is_written() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let deep = format!(
        "{{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\", \"x\": {}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let bodies: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b"\"text\"",
        b"17",
        b"{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\"} trailing",
        b"{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\", \"subject\": \"\xff\xfe\"}",
        b"\xef\xbb\xbf\xff",
        b"{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\", \"subject\": \"\\ud800\"}",
        b"{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\", \"subject\": \"\\udc00\\ud800\"}",
        b"{\"ticket_id\": \"1\", \"from_email\": \"a@b.example\", \"subject\": \"raw \x00\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let signed = zendesk_verifier().sign(Timestamp::now(), body);
        let answer = service.post(ZENDESK, signed, body.to_vec()).await;
        assert_eq!(answer.pointers(), [""], "{:?}", String::from_utf8_lossy(body));
        let headers = vec![("Authorization", format!("Bearer {TOKEN}")), ("Idempotency-Key", "k".into())];
        assert_eq!(service.post(DEBT_UPDATES, headers, body.to_vec()).await.pointers(), [""]);
    }
    let twice = mail("w1").replacen('{', r#"{"from_email": "other@b.example", "x": [{"y": 1, "y": 1}],"#, 1);
    assert_eq!(service.zendesk(&twice).await.pointers(), ["/x/0/y", "/from_email"]);
    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
}

#[tokio::test]
async fn wrong_types_are_400_with_a_pointer_and_nulls_and_unknown_fields_pass() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let with = |field: &str, value: Value| {
        let mut body: Value = serde_json::from_str(&mail("w1")).unwrap();
        body[field] = value;
        body.to_string()
    };
    for field in [
        "subject",
        "from_name",
        "body_text",
        "body_html",
        "webhook_id",
        "in_reply_to",
        "from_email",
        "ticket_id",
        "received_at",
    ] {
        for value in [json!(true), json!({}), json!([1])] {
            assert_eq!(service.zendesk(&with(field, value)).await.pointers(), [format!("/{field}")]);
        }
    }
    for (field, value, pointer) in [
        ("from_email", json!(""), "/from_email"),
        ("from_email", json!("a@b@c"), "/from_email"),
        ("from_email", json!("a\u{0}b@c\r\nx"), "/from_email"),
        ("from_email", json!(null), "/from_email"),
        ("ticket_id", json!(null), "/ticket_id"),
        ("ticket_id", json!(1.5), "/ticket_id"),
        ("webhook_id", json!("x".repeat(256)), "/webhook_id"),
        ("ticket_id", json!("x".repeat(256)), "/ticket_id"),
        ("attachments", json!("none"), "/attachments"),
        ("attachments", json!([{"url": "u"}, 1]), "/attachments/1"),
        ("attachments", json!([{"size": "big"}]), "/attachments/0/size"),
        ("to_addresses", json!([1]), "/to_addresses/0"),
    ] {
        assert_eq!(service.zendesk(&with(field, value)).await.pointers(), [pointer]);
    }
    for field in [
        "subject",
        "from_name",
        "body_text",
        "body_html",
        "in_reply_to",
        "received_at",
        "attachments",
        "to_addresses",
    ] {
        let mut body: Value = serde_json::from_str(&with(field, Value::Null)).unwrap();
        body["webhook_id"] = field.into();
        service.zendesk(&body.to_string()).await.email_id("accepted");
    }
    assert_whole(&database.client().await).await;
}

#[tokio::test]
async fn what_postgres_cannot_store_is_stripped_and_the_request_is_kept_as_received() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = r#"{"ticket_id": 12345678901234567890, "from_email": " Bank AG <a@b.example> ", "subject": "a\u0000b", "body_text": "\u0000", "body_html": "<p>\ud83d\ude00</p>",
        "attachments": [{"url": "u\u0000", "size": 9007199254740991, "x": 1e999999}], "received_at": "gestern \u0000", "huge": 1e999999999, "\u0000": "\u0000",
        "webhook_id": "w\u0000", "deep": [[[[[[[[[[{}]]]]]]]]]]}"#;
    service.zendesk(body).await.email_id("accepted");
    let row = database
        .client()
        .await
        .query_one("select ticket_id, from_email, from_name, subject, body_text, body_html, webhook_id, attachments::text, received_at_note, raw from incoming_emails", &[])
        .await
        .unwrap();
    let texts: Vec<String> = (0..7).map(|column| row.get(column)).collect();
    assert_eq!(texts, ["12345678901234567890", "a@b.example", "Bank AG", "ab", "", "<p>😀</p>", "w"]);
    assert_eq!(row.get::<_, String>(7), r#"[{"url": "u", "size": 9007199254740991}]"#);
    assert!(row.get::<_, String>(8).contains("cannot be read"));
    assert_eq!(row.get::<_, Vec<u8>>(9), body.as_bytes());
}

#[tokio::test]
async fn a_received_at_in_the_future_is_the_time_of_arrival_with_a_note() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = mail("w1").replace("2026-02-17T09:14:22+01:00", "2199-01-01T00:00:00Z");
    service.zendesk(&body).await.email_id("accepted");
    let row = database
        .client()
        .await
        .query_one("select received_at between now() - interval '1 min' and now(), received_at_note from incoming_emails", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    assert!(row.get::<_, String>(1).contains("future"));
}

#[tokio::test]
async fn every_sample_mail_is_accepted_as_it_is() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples/mails");
    let mut sent = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let sample: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        service.zendesk(&sample["webhook"].to_string()).await.email_id("accepted");
        sent += 1;
    }
    assert!(sent >= 30, "only {sent} samples");
    let client = database.client().await;
    assert_eq!(rows(&client).await, [sent; 3]);
    assert_eq!(
        count(&client, "select count(*) from incoming_emails where received_at_note is not null").await,
        0
    );
    assert_whole(&client).await;
}
