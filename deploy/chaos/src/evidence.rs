//! Gathers what is left after a run: rows of Postgres, documents of MongoDB, and every change that MongoDB remembers.

#[cfg(test)]
mod tests;

use crate::{
    checker::{Evidence, Held, Mail, Message, Sent, Told},
    stage::Stage,
    stock,
};
use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mongodb::{
    Collection,
    bson::{Bson, Document, Timestamp as ClusterTime, doc},
    change_stream::event::{ChangeStreamEvent, OperationType},
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::timeout;

const MAILS: &str =
    "select id, webhook_id, concat_ws('/', processing_status, coalesce(match_status, '-'), sync_status),
    sha256(raw) from incoming_emails";
const MESSAGES: &str = "select m.aggregate_id::bigint, m.operation, m.outcome, case when m.dead_at is not null then m.error_class end,
    m.retry_count, count(d.id) from outbox_messages m left join decisions d on d.message_id = m.id group by m.id";
const LEDGER: &str = "select entry_key, stamp, email_id, (amount * 100)::bigint from creditor_debts";
/// The fields of an entry that the relay writes.
const WRITTEN: [&str; 10] = [
    "_relay",
    "current_debt_amount",
    "creditor_response_amount",
    "amount_source",
    "response_received_at",
    "last_contacted_at",
    "contact_status",
    "extraction_confidence",
    "creditor_response_text",
    "response_reference_numbers",
];
/// For the next change that MongoDB remembers.
const NEXT: Duration = Duration::from_secs(60);

/// All of it; the documents' changes since this time.
pub async fn gather(stage: &Stage, sent: Vec<Sent>, since: ClusterTime) -> anyhow::Result<Evidence> {
    let sql = shared::postgres::connect(&stage.postgres.url, "chaos-checker").await?;
    let mut evidence = Evidence { sent, ..Evidence::default() };
    for row in sql.query(MAILS, &[]).await? {
        evidence.mails.push(Mail {
            id: row.get(0),
            webhook_id: row.get(1),
            shows: row.get(2),
            digest: row.get(3),
        });
    }
    for row in sql.query(MESSAGES, &[]).await? {
        evidence.messages.push(Message {
            email_id: row.get(0),
            operation: row.get(1),
            outcome: row.get(2),
            dead: row.get(3),
            retry_count: row.get(4),
            decisions: row.get(5),
        });
    }
    for row in sql.query(LEDGER, &[]).await? {
        let entry = number_of(row.get(0)).context("a key of an entry")?;
        evidence.ledger.push(Held { entry, stamp: row.get(1), email_id: row.get(2), cents: row.get(3) });
    }
    let collection = stage.clients().await?;
    let (entries, clients) = documents(&collection).await?;
    evidence.entries = entries;
    (evidence.history, evidence.strange) = history(&collection, since, &clients).await?;
    evidence.strange.extend(stage.strange_lines()?);
    Ok(evidence)
}

/// What the entries hold, and which client a document is.
async fn documents(
    collection: &Collection<Document>,
) -> anyhow::Result<(Vec<(Held, Told)>, HashMap<Bson, usize>)> {
    let (mut found, mut clients, mut seen) = (Vec::new(), HashMap::new(), HashSet::new());
    let mut cursor = collection.find(doc! {}).await?;
    while let Some(client) = cursor.try_next().await? {
        let list = client.get_array("final_creditor_list")?;
        for element in list {
            let element = element.as_document().context("an entry is a document")?;
            let entry = number_of(element.get_str("id")?).context("an entry's id")?;
            ensure!(seen.insert(entry), "entry {entry} is there twice");
            clients.insert(client.get("_id").context("an id")?.clone(), entry / stock::CREDITORS);
            ensure!(
                element.get_f64("claim_amount").ok() == Some(stock::CLAIM),
                "entry {entry}: nobody may write its claim_amount"
            );
            if element.contains_key("_relay") {
                found.push((held(entry, element)?, told(element)));
            }
        }
    }
    ensure!(
        seen.len() == clients.len() * stock::CREDITORS,
        "{} entries of {} clients",
        seen.len(),
        clients.len()
    );
    Ok((found, clients))
}

/// The changes of entries from this time until now, oldest first: up to a document that is written here to mark the end. And what
/// was changed otherwise than by a marked write of the fields that are the relay's.
async fn history(
    collection: &Collection<Document>,
    since: ClusterTime,
    clients: &HashMap<Bson, usize>,
) -> anyhow::Result<(Vec<Held>, Vec<String>)> {
    let mut changes = collection.watch().start_at_operation_time(since).await?;
    let end = collection.insert_one(doc! { "chaos": "the end" }).await?.inserted_id;
    let (mut history, mut strange, mut latest) = (Vec::new(), Vec::new(), HashMap::<usize, Document>::new());
    loop {
        let next = timeout(NEXT, changes.next()).await.context("MongoDB does not tell its changes")?;
        let change: ChangeStreamEvent<Document> = next.context("the changes have an end")??;
        let id = change
            .document_key
            .as_ref()
            .and_then(|key| key.get("_id"))
            .context("a changed document has an id")?;
        if *id == end {
            collection.delete_one(doc! { "_id": end }).await?;
            return Ok((history, strange));
        }
        if change.operation_type == OperationType::Insert {
            continue;
        }
        ensure!(change.operation_type == OperationType::Update, "{:?} of a document", change.operation_type);
        let client = clients.get(id).context("a client of the run")?;
        let update = change.update_description.context("an update says what it changes")?;
        let fields = update.updated_fields;
        let marked = |creditor: usize| {
            let mark = format!("final_creditor_list.{creditor}._relay");
            fields.keys().any(|path| path.starts_with(&mark))
        };
        let is_ours = |path: &str| {
            let place = path.strip_prefix("final_creditor_list.").and_then(|rest| rest.split_once('.'));
            place.is_some_and(|(place, field)| {
                let is_marked =
                    place.parse().is_ok_and(|creditor| creditor < stock::CREDITORS && marked(creditor));
                is_marked && WRITTEN.iter().any(|written| field.split('.').next() == Some(*written))
            })
        };
        let others = fields.keys().filter(|path| !is_ours(path)).chain(&update.removed_fields);
        strange.extend(others.map(|path| format!("{path} of client {id} was changed")));
        // one update of the relay may change several entries of a client
        for creditor in (0..stock::CREDITORS).filter(|creditor| marked(*creditor)) {
            let field = |name: &str| fields.get(format!("final_creditor_list.{creditor}.{name}"));
            let entry = client * stock::CREDITORS + creditor;
            let before = latest.remove(&entry).unwrap_or_default();
            // what stays as it is, is no change
            let amount = field("current_debt_amount").or(before.get("current_debt_amount"));
            let mut mark = field("_relay").or(before.get("_relay")).and_then(Bson::as_document).cloned();
            for name in ["stamp", "email", "previous"] {
                let changed = field(&format!("_relay.{name}"));
                mark.iter_mut().zip(changed).for_each(|(mark, value)| drop(mark.insert(name, value)));
            }
            let now = doc! { "_relay": mark.clone(), "current_debt_amount": amount };
            history.push(held(entry, &now)?);
            let replaced = before.get("current_debt_amount").unwrap_or(&Bson::Null);
            if mark.as_ref().and_then(|mark| mark.get("previous")) != Some(replaced) {
                strange
                    .push(format!("entry {entry}: its mark tells another amount than the one it replaced"));
            }
            latest.insert(entry, now);
        }
    }
}

fn held(entry: usize, element: &Document) -> anyhow::Result<Held> {
    let mark = element.get_document("_relay")?;
    let stamp = mark.get_str("stamp")?;
    ensure!(stamp.len() == 20, "a stamp of entry {entry} has not 20 digits: {stamp}");
    let email_id = mark.get("email").and_then(|id| id.as_i64().or(id.as_i32().map(i64::from)));
    let cents =
        cents(element, "current_debt_amount").with_context(|| format!("entry {entry} has an amount"))?;
    Ok(Held { entry, stamp: stamp.parse()?, email_id: email_id.context("a mark names its mail")?, cents })
}

/// What an entry tells beside its amount.
fn told(element: &Document) -> Told {
    let word = |name| element.get_str(name).unwrap_or("-");
    let date = |name| element.get_datetime(name).map_or(0, |date| date.timestamp_millis());
    Told {
        fields: format!(
            "{} {} {} {} {}",
            cents(element, "creditor_response_amount").unwrap_or_default(),
            word("amount_source"),
            word("contact_status"),
            date("response_received_at"),
            date("last_contacted_at")
        ),
        text: word("creditor_response_text").to_owned(),
    }
}

fn cents(element: &Document, name: &str) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "amounts of a run are below a million")]
    element.get_f64(name).ok().map(|amount| (amount * 100.0).round() as i64)
}

fn number_of(entry_id: &str) -> Option<usize> {
    entry_id.strip_prefix("cr_")?.parse().ok()
}
