//! Nobody without the secret gets anything written.

use crate::harness::*;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use testkit::Database;

#[tokio::test]
async fn a_signed_mail_is_stored_with_its_key_and_its_first_message() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = mail("w1");
    let id = service.zendesk(&body).await.email_id("accepted");
    let client = database.client().await;
    let row = client
        .query_one(
            "select e.source, e.webhook_id, e.ticket_id, e.subject, e.raw, e.received_at::text, e.received_at_note, e.processing_status,
                e.sync_status, k.key, k.result ->> 'status', (k.result ->> 'email_id')::bigint, extract(epoch from k.expires_at - k.created_at)::int,
                m.aggregate_type, m.aggregate_id, m.operation, m.payload::text, m.idempotency_key, m.traceparent
            from incoming_emails e, idempotency_keys k, outbox_messages m",
            &[],
        )
        .await
        .unwrap();
    let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
    assert_eq!([text(0), text(1), text(2), text(3)], ["zendesk", "w1", "48066", "Ihre Anfrage – 542902"]);
    assert_eq!(row.get::<_, Vec<u8>>(4), body.as_bytes());
    assert_eq!(text(5).parse::<jiff::Timestamp>().unwrap().to_string(), "2026-02-17T08:14:22Z");
    assert_eq!([text(6), text(7), text(8)], ["", "received", "pending"]);
    assert_eq!([text(9), text(10)], ["zendesk:w1", "accepted"]);
    assert_eq!((row.get::<_, i64>(11), row.get::<_, i32>(12)), (id, 86_400));
    assert_eq!([text(13), text(14), text(15)], ["incoming_email", &id.to_string(), "email_extraction"]);
    let operation = shared::message::Operation::EmailExtraction;
    assert_eq!(text(16), format!("{{\"email_id\": {id}}}"));
    assert_eq!(text(17), operation.key(id, shared::message::Revision::FIRST));
    assert!(text(18).parse::<shared::trace::TraceParent>().is_ok(), "a trace begins here: {}", text(18));
}

#[tokio::test]
async fn a_wrong_missing_or_stale_signature_is_a_401_and_nothing_is_written() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = mail("w1");
    let now = Timestamp::now();
    let sign = |time: Timestamp| zendesk_verifier().sign(time, body.as_bytes());

    service.post(ZENDESK, Vec::new(), body.clone()).await.is_problem(401, "signature-missing");
    let mut half = sign(now);
    half.pop();
    service.post(ZENDESK, half, body.clone()).await.is_problem(401, "signature-missing");
    let one_byte_changed = body.replacen("4.812,37", "4.812,38", 1);
    service.post(ZENDESK, sign(now), one_byte_changed).await.is_problem(401, "signature-invalid");
    let other = ingest::source::zendesk::Verifier::new(&"another secret".parse().unwrap(), false, 1).unwrap();
    service
        .post(ZENDESK, other.sign(now, body.as_bytes()), body.clone())
        .await
        .is_problem(401, "signature-invalid");
    for away in [-310, 310] {
        let stale = sign(now + SignedDuration::from_secs(away));
        service.post(ZENDESK, stale, body.clone()).await.is_problem(401, "timestamp-out-of-window");
    }
    // A time that is none, signed all the same; and headers without a value.
    let mac = |signed: &str| {
        let key = hmac::Hmac::<sha2::Sha256>::new_from_slice(ZENDESK_SECRET.as_bytes()).unwrap();
        BASE64.encode(key.chain_update(signed).chain_update(&body).finalize().into_bytes())
    };
    for (time, name) in [
        ("yesterday", "timestamp-out-of-window"),
        ("-1771316062", "timestamp-out-of-window"),
        ("99999999999999999999", "timestamp-out-of-window"),
        ("", "signature-missing"),
    ] {
        let signed = vec![
            ("X-Zendesk-Webhook-Signature", mac(time)),
            ("X-Zendesk-Webhook-Signature-Timestamp", time.to_owned()),
        ];
        service.post(ZENDESK, signed, body.clone()).await.is_problem(401, name);
    }
    let mut empty = sign(now);
    empty[0].1.clear();
    service.post(ZENDESK, empty, body.clone()).await.is_problem(401, "signature-missing");
    for prefix in ["webhook", "svix"] {
        for (part, value, name) in [
            ("id", "", "signature-missing"),
            ("timestamp", "", "signature-missing"),
            ("signature", "", "signature-missing"),
            ("signature", "v1,", "signature-invalid"),
            ("timestamp", "soon", "signature-invalid"),
        ] {
            let signed = standard_verifier().sign(None, now, body.as_bytes());
            let signed: Vec<_> =
                signed.into_iter().map(|(name, value)| (name.replace("webhook", prefix), value)).collect();
            let changed = format!("{prefix}-{part}");
            let signed = signed.iter().map(|(name, old)| {
                (name.as_str(), if *name == changed { value.to_owned() } else { old.clone() })
            });
            service.post(STANDARD, signed.collect(), body.clone()).await.is_problem(401, name);
        }
    }
    // Not even a broken body says more to a stranger.
    service.post(ZENDESK, Vec::new(), "{").await.is_problem(401, "signature-missing");
    let foreign = standard_verifier().sign(None, now, body.as_bytes());
    service.post(ZENDESK, foreign, body.clone()).await.is_problem(401, "signature-missing");
    let legacy = vec![("X-Zendesk-Signature", "00".repeat(32))];
    service.post(ZENDESK, legacy, body.clone()).await.is_problem(401, "signature-missing");

    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
}

#[tokio::test]
async fn a_standard_webhook_is_stored_once_under_its_signed_id() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = r#"{"type":"email.received","created_at":"2026-02-17T08:14:22.000Z","data":{"email_id":"e1","from":"Bank AG <a@b.example>",
        "to":["x@y.example"],"subject":"S","text":"T","message_id":"<1@b.example>","attachments":[{"id":"a1","filename":"f.pdf","content_type":"application/pdf"}]}}"#;
    let headers = |id: &str| standard_verifier().sign(Some(id), Timestamp::now(), body.as_bytes());
    let id = service.post(STANDARD, headers("msg_1"), body).await.email_id("accepted");
    let svix: Vec<_> =
        headers("msg_1").into_iter().map(|(name, value)| (name.replace("webhook", "svix"), value)).collect();
    let svix = svix.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    assert_eq!(service.post("/api/v1/resend/webhook", svix, body).await.email_id("duplicate"), id);
    // The header cannot make a second delivery out of a signed one.
    let mut with_key = headers("msg_1");
    with_key.push(("Idempotency-Key", "another".into()));
    assert_eq!(service.post(STANDARD, with_key, body).await.email_id("duplicate"), id);
    let client = database.client().await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
    let row = client.query_one("select source, webhook_id, from_email, from_name, attachments #>> '{0,filename}' from incoming_emails", &[]).await.unwrap();
    let texts: Vec<String> = (0..5).map(|column| row.get(column)).collect();
    assert_eq!(texts, ["standard", "msg_1", "a@b.example", "Bank AG", "f.pdf"]);

    let metadata_only = r#"{"type":"email.received","data":{"from":"a@b.example","subject":"S"}}"#;
    let signed = standard_verifier().sign(None, Timestamp::now(), metadata_only.as_bytes());
    service.post(STANDARD, signed, metadata_only).await.is_problem(503, "mail-without-body");
    let other_type = r#"{"type":"email.bounced","data":{}}"#;
    let signed = standard_verifier().sign(None, Timestamp::now(), other_type.as_bytes());
    service.post(STANDARD, signed, other_type).await.is_problem(400, "unsupported-event");
    assert_eq!(rows(&client).await, [1, 1, 1]);
}

/// The fields of an event as Resend's documentation lists them: no body, no headers.
const RESEND_EVENT: &str = r#"{
    "type": "email.received", "created_at": "2026-02-22T23:41:12.126Z",
    "data": {
        "email_id": "56761188-7520-42d8-8898-ff6fc54ce618", "created_at": "2026-02-22T23:41:11.894719+00:00",
        "from": "Quarkstein Bank <forderungen@quarkstein-bank.example>", "to": ["post@kanzlei.example"], "bcc": [], "cc": [],
        "message_id": "<111-222-333@quarkstein-bank.example>", "subject": "Ihre Anfrage",
        "attachments": [{
            "id": "2a0c9ce0-3112-4728-976e-47ddcd16a318", "filename": "aufstellung.png", "content_type": "image/png",
            "content_disposition": "inline", "content_id": "img001"
        }]
    }
}"#;

#[tokio::test]
async fn an_event_without_the_mails_body_is_stored_once_with_a_message_to_fetch_it() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let signed = || standard_verifier().sign(Some("msg_1"), Timestamp::now(), RESEND_EVENT.as_bytes());
    let id = service.post("/api/v1/resend/webhook", signed(), RESEND_EVENT).await.email_id("accepted");
    assert_eq!(service.post(STANDARD, signed(), RESEND_EVENT).await.email_id("duplicate"), id);
    let client = database.client().await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
    assert_whole(&client).await;
    let row = client
        .query_one(
            "select m.aggregate_type, m.operation, m.payload::text, m.idempotency_key, e.processing_status, e.webhook_id, e.from_email,
                e.received_at::text, e.attachments #>> '{0,filename}', e.body_text is null and e.body_html is null
            from incoming_emails e, outbox_messages m",
            &[],
        )
        .await
        .unwrap();
    let texts: Vec<String> = (0..9).map(|column| row.get(column)).collect();
    let payload = format!(r#"{{"email_id": {id}, "provider_id": "56761188-7520-42d8-8898-ff6fc54ce618"}}"#);
    assert_eq!(texts[..4], ["incoming_email", "email_fetch", &payload, &format!("email_fetch:{id}:0")]);
    assert_eq!(texts[4..7], ["received", "msg_1", "forderungen@quarkstein-bank.example"]);
    assert_eq!(texts[7].parse::<Timestamp>().unwrap().to_string(), "2026-02-22T23:41:11.894719Z");
    assert_eq!((texts[8].as_str(), row.get::<_, bool>(9)), ("aufstellung.png", true));
    // The relay reads what the statement wrote.
    let read: shared::message::EmailFetch = serde_json::from_str(&texts[2]).unwrap();
    assert_eq!((read.email_id, read.provider_id.len()), (id, 36));

    let status = service.get(&format!("/v1/emails/{id}")).await.json();
    assert_eq!((&status["attempts"], &status["outcome"]), (&0.into(), &serde_json::Value::Null));
    client.batch_execute("update outbox_messages set retry_count = 3").await.unwrap();
    let status = service.get(&format!("/v1/emails/{id}")).await.json();
    assert_eq!((&status["attempts"], &status["steps"][0]["operation"]), (&3.into(), &"email_fetch".into()));
}

#[tokio::test]
async fn a_source_without_a_secret_does_not_exist_and_neither_do_endpoints_without_a_token() {
    let database = Database::new().await;
    let mut bare = config(&database.url);
    bare.access.verifiers.standard = None;
    bare.access.tokens = None;
    let service = Service::start(bare).await;
    let body = mail("w1");
    let signed = || standard_verifier().sign(None, Timestamp::now(), body.as_bytes());
    service.post(STANDARD, signed(), body.clone()).await.is_problem(404, "unknown-source");
    service.post("/api/v1/resend/webhook", signed(), body.clone()).await.is_problem(404, "unknown-source");
    service.post("/v1/webhooks/mailgun", signed(), body.clone()).await.is_problem(404, "unknown-source");
    service.debt_update("k", &debt_update("1")).await.is_problem(404, "not-found");
    service.get("/v1/emails/1").await.is_problem(404, "not-found");
    assert_eq!(service.zendesk(&body).await.status, 200);
}

#[tokio::test]
async fn unsigned_webhooks_are_taken_only_from_sources_without_a_secret_and_only_when_switched_on() {
    let database = Database::new().await;
    let mut open = config(&database.url);
    open.access.verifiers.standard = None;
    open.access.verifiers.allow_unsigned = true;
    let service = Service::start(open).await;
    let event = r#"{"type":"email.received","data":{"email_id":"e1","from":"a@b.example","text":"T"}}"#;
    let id = service.post(STANDARD, Vec::new(), event).await.email_id("accepted");
    assert_eq!(service.post(STANDARD, Vec::new(), event).await.email_id("duplicate"), id);
    service.post(ZENDESK, Vec::new(), mail("w1")).await.is_problem(401, "signature-missing");
}

#[tokio::test]
async fn the_structured_endpoints_want_a_known_token() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let with = |token: Option<&str>| {
        let mut headers = vec![("Idempotency-Key", "k".to_owned())];
        headers.extend(token.map(|token| ("Authorization", token.to_owned())));
        service.post(DEBT_UPDATES, headers, debt_update("1"))
    };
    for token in [None, Some("Bearer wrong"), Some("Basic test-token"), Some("Bearer test-token2")] {
        let refused = with(token).await;
        refused.is_problem(401, "token-invalid");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
    assert_eq!(with(Some("bearer test-token")).await.status, 200);
}
