//! The replaced service's database, read and never written: one read-only transaction with one view of it, page by page.
//!
//! Its layout has changed over the years, so rows are read as JSON and asked for fields: one that is not there is null. JSON keeps the
//! digits of a number as they were stored.

use super::LegacyError;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value};
use std::collections::HashMap;
use tokio_postgres::{Client, IsolationLevel, Transaction, types::Type};

/// Mails of one page: their bodies are held in memory, each at most some MiB.
pub(super) const PAGE: i64 = 50;

/// Times without a zone are UTC there. Nothing waits for a lock that somebody holds.
const SETTINGS: &str = "set local timezone = 'UTC'; set local lock_timeout = '10s'";

/// Whether these are the tables of the service that is replaced, and not ours.
const LAYOUT: &str = "
select count(*) filter (where table_name = 'incoming_emails' and column_name = 'zendesk_webhook_id') = 1
    and count(*) filter (where table_name = 'outbox_messages' and column_name = 'payload') = 1,
    count(*) filter (where table_name = 'idempotency_keys' and column_name = 'key') = 1
from information_schema.columns where table_schema = current_schema()";

/// By primary key.
const MAILS: &str =
    "select row_to_json(m)::text from incoming_emails m where m.id > $1 order by m.id limit $2";

/// The updates of these mails; the table is small, since finished rows leave it after 30 days.
const UPDATES: &str =
    "select row_to_json(o)::text from outbox_messages o where o.aggregate_id::text = any($1) order by o.id";

/// Updates of no mail.
const ORPHANS: &str = "
select o.id::bigint from outbox_messages o
where not exists (select from incoming_emails m where m.id::text = o.aggregate_id::text) order by o.id limit 1000";

/// By primary key; what has expired means nothing any more.
const KEYS: &str = "
select row_to_json(k)::text from idempotency_keys k
where k.id > $1 and k.expires_at::timestamptz > now() order by k.id limit $2";

/// The replaced service's database in one view.
pub(super) struct Old<'a> {
    transaction: Transaction<'a>,
    pub(super) has_keys: bool,
}

/// A row as JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Row(pub(super) Map<String, Value>);

/// A mail with its updates, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct OldMail {
    pub(super) id: i64,
    pub(super) row: Row,
    pub(super) updates: Vec<Row>,
}

impl<'a> Old<'a> {
    pub(super) async fn open(client: &'a mut Client) -> Result<Old<'a>, LegacyError> {
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(LegacyError::Old)?;
        transaction.batch_execute(SETTINGS).await.map_err(LegacyError::Old)?;
        let row = transaction.query_typed_one(LAYOUT, &[]).await.map_err(LegacyError::Old)?;
        if !row.get::<_, bool>(0) {
            return Err(LegacyError::Layout);
        }
        Ok(Old { transaction, has_keys: row.get(1) })
    }

    /// The mails after this id, with their updates.
    pub(super) async fn mails(&self, after: i64) -> Result<Vec<OldMail>, LegacyError> {
        let rows = self.rows(MAILS, after).await?;
        let mut mails: Vec<OldMail> = rows
            .into_iter()
            .filter_map(|row| Some(OldMail { id: row.integer("id")?, row, updates: Vec::new() }))
            .collect();
        let ids: Vec<String> = mails.iter().map(|mail| mail.id.to_string()).collect();
        let rows = self.transaction.query_typed(UPDATES, &[(&ids, Type::TEXT_ARRAY)]).await;
        let mut updates: HashMap<i64, Vec<Row>> = HashMap::new();
        for row in rows.map_err(LegacyError::Old)?.iter().filter_map(read) {
            updates.entry(row.integer("aggregate_id").unwrap_or_default()).or_default().push(row);
        }
        for mail in &mut mails {
            mail.updates = updates.remove(&mail.id).unwrap_or_default();
        }
        Ok(mails)
    }

    /// The ids of updates that name no mail.
    pub(super) async fn orphans(&self) -> Result<Vec<i64>, LegacyError> {
        let rows = self.transaction.query_typed(ORPHANS, &[]).await.map_err(LegacyError::Old)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The keys after this id that have not expired.
    pub(super) async fn keys(&self, after: i64) -> Result<Vec<Row>, LegacyError> {
        self.rows(KEYS, after).await
    }

    async fn rows(&self, statement: &str, after: i64) -> Result<Vec<Row>, LegacyError> {
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&after, Type::INT8), (&PAGE, Type::INT8)];
        let rows = self.transaction.query_typed(statement, &parameters).await.map_err(LegacyError::Old)?;
        Ok(rows.iter().filter_map(read).collect())
    }
}

fn read(row: &tokio_postgres::Row) -> Option<Row> {
    serde_json::from_str(row.get(0)).ok().map(Row)
}

impl Row {
    /// A field's text, or a number's digits, without NUL and blanks around; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = match self.0.get(name)? {
            Value::String(text) => text.replace('\0', ""),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A whole number, or a text that is one.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// A time; one without a zone is UTC.
    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        text.parse::<Timestamp>().ok().or_else(|| {
            let time: DateTime = text.parse().ok()?;
            Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })
    }

    /// A field that holds JSON, stored as such or as its text; null is none.
    pub(super) fn json(&self, name: &str) -> Option<Value> {
        match self.0.get(name)? {
            Value::Null => None,
            Value::String(text) => serde_json::from_str(text).ok(),
            value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(value.clone())
            }
        }
    }

    /// The JSON object in a field, as a row of its own.
    pub(super) fn object(&self, name: &str) -> Option<Row> {
        if let Value::Object(fields) = self.json(name)? { Some(Row(fields)) } else { None }
    }

    /// The texts and numbers of a list, or the only one.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let list = match self.json(name).or_else(|| self.0.get(name).cloned()) {
            Some(Value::Array(list)) => list,
            Some(Value::Null) | None => Vec::new(),
            Some(one) => vec![one],
        };
        list.into_iter()
            .filter_map(|value| Row(Map::from_iter([("x".to_owned(), value)])).text("x"))
            .collect()
    }
}
