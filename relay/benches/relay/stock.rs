//! The work: messages as ingest commits them, and the documents that they are about.
//!
//! Message i (from 1) is about a pair (client, creditor) in shuffled order. Its mail is received a second after that of i - 1 and
//! its amount is a cent higher: in each pair the amounts rise in the order of the stamps, so the write guard holds nothing. All of
//! a pair follows from its number, so that no look-up is needed to know what a message should have led to.

use crate::report::say;
use anyhow::Context as _;
use mongodb::bson::{Document, doc, oid::ObjectId};
use testkit::{Database, MongoDatabase};
use tokio_postgres::Client;

/// Creditors of one client.
pub(crate) const ENTRIES: u32 = 5;
/// Messages of one pair.
const PER_PAIR: u32 = 10;
/// Different creditors; five pairs in a row never share one.
const CREDITORS: u32 = 997;

/// Pairs of a bench that feeds for a long time: their documents fit into MongoDB's cache.
pub(crate) const MOST_PAIRS: u32 = 100_000;

/// How many pairs `n` messages are about.
pub(crate) fn pairs_of(n: u32) -> u32 {
    (n / PER_PAIR).max(1)
}

/// The document's `_id` of a pair.
pub(crate) fn client_id(pair: u32) -> ObjectId {
    let mut bytes = [0; 12];
    for (to, from) in bytes.iter_mut().rev().zip((pair / ENTRIES).to_le_bytes()) {
        *to = from;
    }
    ObjectId::from_bytes(bytes)
}

/// The entry's `id` of a pair.
pub(crate) fn entry_id(pair: u32) -> String {
    format!("cr_{pair}")
}

/// The pair of a reference number or an entry's id.
pub(crate) fn pair_of(name: &str) -> anyhow::Result<u32> {
    name.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().context("not the name of a pair")
}

/// The number of the message with this stamp.
pub(crate) fn message_of(stamp: &str) -> Option<u32> {
    const FIRST_SECOND: i64 = 1_767_225_600; // 2026-01-01, where i = 0
    let stamp: shared::message::Stamp = stamp.parse().ok()?;
    u32::try_from((stamp.number() >> 20) / 1000 - FIRST_SECOND).ok()
}

/// The documents of `pairs` pairs.
fn documents(pairs: u32) -> impl Iterator<Item = Document> {
    (0..pairs.div_ceil(ENTRIES)).map(|client| {
        let entry = |pair: u32| {
            let creditor = pair % CREDITORS;
            doc! {
                "id": entry_id(pair), "sender_name": format!("Kontor {creditor} GmbH"),
                "sender_email": format!("konto@kontor{creditor}.example"), "glaeubiger_name": format!("Kontor {creditor} GmbH"),
                "reference_number": null, "claim_amount": 80, "contact_status": "email_sent", "portal_note": "theirs",
            }
        };
        let entries: Vec<Document> = (0..ENTRIES).map(|at| entry(client * ENTRIES + at)).collect();
        doc! {
            "_id": client_id(client * ENTRIES), "aktenzeichen": format!("2024_{client}"), "firstName": format!("Eva{client}"),
            "lastName": format!("Adler{client}"), "portal_field": { "kept": true }, "final_creditor_list": entries,
        }
    })
}

/// A MongoDB database with the documents of these pairs.
pub(crate) async fn mongo(pairs: u32) -> anyhow::Result<MongoDatabase> {
    let mongo = MongoDatabase::new().await;
    let mut documents = documents(pairs);
    loop {
        let part: Vec<Document> = documents.by_ref().take(1000).collect();
        if part.is_empty() {
            break;
        }
        mongo.clients.insert_many(part).ordered(false).await?;
    }
    let admin = mongo.clients.client().database("admin");
    admin.run_command(doc! { "fsync": 1 }).await?;
    Ok(mongo)
}

/// `written`: the rows (i, pair) that `work` selects, with what they have to say.
fn written(work: &str) -> String {
    format!(
        "with work as ({work}), named as (
            select i, pair, 'Kontor ' || pair % {CREDITORS} || ' GmbH' as creditor, 'konto@kontor' || pair % {CREDITORS} || '.example' as address,
                '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 second' as received_at, (100 + i * 0.01)::text as amount
            from work
        ), written as (
            select i, creditor, address, received_at, jsonb_build_object(
                'email_id', i, 'client_aktenzeichen', '2024/' || pair / {ENTRIES}, 'creditor_email', address, 'creditor_name', creditor,
                'new_debt_amount', amount, 'response_text', 'Stand heute', 'reference_numbers', jsonb_build_array('TK-' || pair),
                'extraction_confidence', 0.9, 'received_at', received_at, 'origin', 'mail',
                'stamp', lpad(((extract(epoch from received_at)::bigint * 1000 << 20) | (i % 65536 << 4))::text, 20, '0')) as payload
            from named
        )"
    )
}

fn messages(payload: &str) -> String {
    let insert = shared::outbox::INSERT;
    format!(
        "{insert} select 'creditor_debt_update', i::text, 'creditor_debt_update', {payload}, 'creditor_debt_update:' || i || ':0', null
        from written order by written.i"
    )
}

/// Commits mails and messages of the rows (i, pair) that `work` selects, in the order of i. `payload` is an expression over
/// `payload` and i.
pub(crate) fn insert(work: &str, payload: &str) -> String {
    let (written, messages) = (written(work), messages(payload));
    format!(
        "{written}, mails as (
            insert into incoming_emails (id, source, webhook_id, from_email, from_name, raw, received_at, fingerprint, extracted_data,
                processing_status, idempotency_key)
            select i, 'api', 'bench-' || i, address, creditor, convert_to((payload - 'stamp')::text, 'UTF8'), received_at,
                sha256(i::text::bytea), payload - 'stamp' - 'origin', 'extracted', 'creditor_debt_update:' || i || ':' || md5(i::text)
            from written
        )
        {messages}"
    )
}

/// The same without the mails, where only the messages' own rows matter.
pub(crate) fn insert_without_mails(work: &str) -> String {
    format!("{} {}", written(work), messages("payload"))
}

/// `n` messages, ten of each pair.
pub(crate) fn shuffled(n: u32) -> String {
    let pairs = pairs_of(n);
    format!(
        "select row_number() over (order by md5(g::text)) as i, g % {pairs} as pair from generate_series(0, {n} - 1) g"
    )
}

/// A database with `n` waiting messages, to be copied for each run.
pub(crate) async fn waiting(n: u32) -> anyhow::Result<Database> {
    waiting_with(n, "payload").await
}

/// With another payload: an expression over `payload` and i.
pub(crate) async fn waiting_with(n: u32, payload: &str) -> anyhow::Result<Database> {
    say(&format!("seeding {n} messages"));
    let database = Database::new().await;
    let sql = connect(&database).await?;
    sql.batch_execute(&insert(&shuffled(n), payload)).await?;
    sql.batch_execute("vacuum analyze").await?;
    Ok(database)
}

/// A connection of the bench's own: its work is never waited for by a [`crate::meter::Meter`].
pub(crate) async fn connect(database: &Database) -> anyhow::Result<Client> {
    Ok(shared::postgres::connect(&database.url, "bench").await?)
}
