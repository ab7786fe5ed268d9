//! What is sent, made beforehand: signing is the senders' work and not what is measured.

use anyhow::{Context as _, ensure};
use ingest::source::zendesk::Verifier;
use jiff::Timestamp;
use serde_json::json;
use std::fmt::Write;
use testkit::Database;

pub(crate) const TOKEN: &str = "a-token-of-the-bench";
pub(crate) const SECRET: &str = "a secret of the bench and long enough";

/// How long ago a repeated request was sent the first time, in requests: longer than any batch, so that its key is looked up; and
/// no multiple of ten, so that that one was no repeat itself.
const AGO: u32 = 1001;

/// Which endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    DebtUpdate,
    Zendesk,
}

/// So many requests as bytes; every `repeats`th is one of some time ago again.
pub(crate) fn many(kind: Kind, n: u32, repeats: u32) -> Vec<Vec<u8>> {
    let number = |i: u32| if repeats > 0 && i % repeats == repeats - 1 { i.saturating_sub(AGO) } else { i };
    let verifier = SECRET.parse().ok().and_then(|secret| Verifier::new(&secret, false, 1).ok());
    (0..n).map(|i| one(kind, number(i), verifier.as_ref())).collect()
}

fn one(kind: Kind, number: u32, verifier: Option<&Verifier>) -> Vec<u8> {
    let (path, body, headers) = match kind {
        Kind::DebtUpdate => {
            let headers = vec![
                ("authorization", format!("Bearer {TOKEN}")),
                ("idempotency-key", format!("bench-{number}")),
            ];
            ("/v1/debt-updates", debt_update(number), headers)
        }
        Kind::Zendesk => {
            let body = mail(number);
            let headers = verifier.map(|verifier| verifier.sign(Timestamp::now(), body.as_bytes()));
            ("/v1/webhooks/zendesk", body, headers.unwrap_or_default())
        }
    };
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: ingest\r\ncontent-type: application/json\r\n");
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
    request.into_bytes()
}

fn debt_update(number: u32) -> String {
    json!({
        "client_name": "Mößbauer, Jürgen", "client_aktenzeichen": format!("2024/{number}"), "creditor_email": "inkasso@bank.example",
        "creditor_name": "Quarkstein Bank AG", "new_debt_amount": "4812.37", "extraction_confidence": 0.93,
        "response_text": "Die Restforderung beträgt zum heutigen Tag 4.812,37 EUR.", "reference_numbers": ["A-17", "542902"],
        "received_at": "2026-02-17T09:14:22+01:00", "ticket_id": "48066",
    })
    .to_string()
}

/// A mail of the usual length.
fn mail(number: u32) -> String {
    let text = "Sehr geehrte Damen und Herren, die Forderung gegen Ihren Mandanten beträgt 4.812,37 EUR. "
        .repeat(12);
    json!({
        "ticket_id": "48066", "webhook_id": format!("bench-{number}"), "from_email": "forderungen@quarkstein-bank.example",
        "from_name": "Quarkstein Bank AG", "subject": "Ihre Anfrage – 542902", "body_text": text, "body_html": null,
        "received_at": "2026-02-17T09:14:22+01:00",
    })
    .to_string()
}

/// The three rows of one debt update of [`debt_update`]'s size, under a random key: what pgbench does, and what fills a database.
pub(crate) const THREE_ROWS: &str = "with start as materialized (
    select nextval(pg_get_serial_sequence('incoming_emails', 'id')) as id, gen_random_uuid()::text as key
), key as (
    insert into idempotency_keys (key, fingerprint, result, expires_at)
    select 'api:' || key, sha256(key::bytea), jsonb_build_object('status', 'accepted', 'message', 'stored', 'email_id', id),
        now() + interval '1 day' from start
    on conflict (key) do nothing returning key
), email as (
    insert into incoming_emails (id, source, webhook_id, ticket_id, from_email, from_name, body_text, raw, received_at, fingerprint,
        extracted_data, processing_status, idempotency_key)
    select id, 'api', start.key, '48066', 'inkasso@bank.example', 'Quarkstein Bank AG', repeat('Restforderung ', 4),
        convert_to(repeat('0123456789', 40), 'UTF8'), now(), sha256(start.key::bytea),
        jsonb_build_object('client_name', repeat('x', 20), 'creditor_name', repeat('x', 20), 'response_text', repeat('x', 60)),
        'extracted', 'creditor_debt_update:' || id || ':' || substr(start.key, 1, 16)
    from start join key on key.key = 'api:' || start.key returning id
)
insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key)
select 'incoming_email', id::text, 'creditor_debt_update',
    jsonb_build_object('email_id', id, 'text', repeat('x', 400)), 'creditor_debt_update:' || id || ':0' from email";

/// So many mails, each with its key and message.
pub(crate) async fn fill(database: &Database, count: u32) -> anyhow::Result<()> {
    let sql = database.client().await;
    let many = THREE_ROWS.replace(
        "gen_random_uuid()::text as key\n",
        &format!("gen_random_uuid()::text as key from generate_series(1, {count})\n"),
    );
    sql.batch_execute(&many).await.context("filling a database")?;
    sql.batch_execute("vacuum analyze").await?;
    Ok(())
}

/// How many mails are there; an error unless there are as many keys and messages.
pub(crate) async fn stored(database: &Database) -> anyhow::Result<i64> {
    let counts = "select (select count(*) from incoming_emails), (select count(*) from idempotency_keys),
        (select count(*) from outbox_messages)";
    let row = database.client().await.query_one(counts, &[]).await?;
    let [mails, keys, messages]: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ensure!(mails == keys && keys == messages, "{mails} mails, {keys} keys, {messages} messages");
    Ok(mails)
}
