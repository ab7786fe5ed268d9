//! `relay explain CLIENT/CREDITOR`: an entry's mails, messages, ledger row and what MongoDB has, in one screen.

use super::{
    Explanation, explain,
    mongodb::{MongoDb, MongoSide},
};
use crate::{
    client::{Client, Entry},
    ledger::entries::{self, LedgerEntry},
    matching::spellings,
};
use serde::Serialize;
use serde_json::{Value, json};
use shared::message::EmailId;
use shared::{columns::typed, postgres::Connection};
use std::fmt;

/// Mails that are shown.
const MAILS: i64 = 20;
/// Ledger rows that are shown.
const ENTRIES: i64 = 100;

/// The newest mails that were decided to mean the entry ($1 = patterns of candidates), that the ledger has of it ($2), or that name the
/// client ($3) and have come to nothing yet. Walks mails and decisions: for people, not for loops.
const MAILS_OF: &str = "
select m.id from incoming_emails m
where m.id in (select email_id from decisions where candidates @> any($1::jsonb[]))
    or m.id = any($2)
    or m.extracted_data ->> 'client_aktenzeichen' = any($3) and not exists (
        select from decisions d where d.email_id = m.id and d.decision in ('applied', 'already', 'superseded'))
order by m.received_at desc, m.id desc limit $4";

/// An entry, or all of a client's: what `relay explain CLIENT/CREDITOR --json` prints.
#[derive(Debug, Serialize)]
pub struct EntryExplanation {
    /// As asked for.
    pub name: String,
    /// The ledger's rows, the newest first; at most 100.
    pub ledger: Vec<LedgerEntry>,
    /// What MongoDB has.
    pub mongodb: MongoSide,
    /// The newest mails about it, at most 20, without MongoDB's side.
    pub emails: Vec<Explanation>,
}

/// What a name may mean: a client's number or `_id` alone, or with the key of an entry behind a slash. Numbers have slashes too, so each
/// slash may be the one; a last one without a key says that there is none.
fn meanings(name: &str) -> Vec<(String, Option<String>)> {
    let name = name.trim();
    if let Some(client) = name.strip_suffix('/') {
        return spellings(client).into_iter().map(|client| (client, None)).collect();
    }
    let mut meanings: Vec<_> = spellings(name).into_iter().map(|client| (client, None)).collect();
    for (at, _) in name.match_indices('/') {
        let (client, key) = name.split_at(at);
        let key = key.trim_start_matches('/');
        let clients = spellings(client).into_iter();
        meanings.extend(clients.filter(|_| !key.is_empty()).map(|client| (client, Some(key.to_owned()))));
    }
    meanings
}

/// Whether the name means this entry.
fn is_meant(meanings: &[(String, Option<String>)], client: &Client, entry: &Entry) -> bool {
    meanings.iter().any(|(name, key)| {
        (*name == client.client_id || Some(name) == client.aktenzeichen.as_ref())
            && key.as_ref().is_none_or(|key| *key == entry.entry_key)
    })
}

/// Everything about the entry; None if nobody knows it.
///
/// # Errors
/// The statements'.
pub async fn explain_entry(
    connection: &Connection,
    mongodb: &MongoDb,
    name: &str,
) -> Result<Option<EntryExplanation>, tokio_postgres::Error> {
    let meanings = meanings(name);
    let ledger = entries::of_client(&***connection, &meanings, ENTRIES).await?;
    let pattern = |(client, key): &(String, Option<String>)| {
        ["aktenzeichen", "client_id"].map(|field| match key {
            Some(key) => json!([{ field: client, "entries": [{ "entry_key": key }] }]),
            None => json!([{ field: client }]),
        })
    };
    let patterns: Vec<Value> = meanings.iter().flat_map(pattern).collect();
    let own: Vec<EmailId> = ledger.iter().map(|row| row.email_id).collect();
    let names: Vec<&str> = meanings.iter().map(|(client, _)| client.as_str()).collect();
    let rows = connection.query_typed(MAILS_OF, &typed(&[&patterns, &own, &names, &MAILS])).await?;
    let mut emails = Vec::new();
    for row in rows {
        emails.extend(explain(connection, row.get(0)).await?);
    }
    let ids: Vec<&str> =
        ledger.iter().map(|row| row.client_id.as_str()).chain(names.iter().copied()).collect();
    let is_in_ledger = |client: &Client, entry: &Entry| {
        ledger.iter().any(|row| row.client_id == client.client_id && row.entry_key == entry.entry_key)
    };
    let wanted =
        |client: &Client, entry: &Entry| is_meant(&meanings, client, entry) || is_in_ledger(client, entry);
    let mongodb = mongodb.entries(&ids, &names, wanted).await;
    let is_known = !(ledger.is_empty() && emails.is_empty() && mongodb.entries().is_empty());
    Ok(is_known.then(|| EntryExplanation { name: name.to_owned(), ledger, mongodb, emails }))
}

/// For people: the entries first, then the mails.
impl fmt::Display for EntryExplanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ledger.is_empty() {
            writeln!(formatter, "ledger: nothing has been written")?;
        }
        for row in &self.ledger {
            writeln!(formatter, "{row}")?;
        }
        write!(formatter, "{}", self.mongodb)?;
        if self.emails.is_empty() {
            return writeln!(formatter, "no email is known");
        }
        for email in &self.emails {
            writeln!(formatter)?;
            email.write_short(formatter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slash_may_be_the_one_before_the_entry() {
        let of = |name: &str| {
            let text =
                |(client, key): (String, Option<String>)| format!("{client} {}", key.unwrap_or("-".into()));
            meanings(name).into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(of("2024_118"), ["2024/118 -", "2024_118 -"]);
        assert_eq!(of("17/"), ["17 -"]);
        assert_eq!(of("abc/cr_1"), ["abc/cr/1 -", "abc/cr_1 -", "abc_cr_1 -", "abc cr_1"]);
        assert!(of("2024/118/cr_1").contains(&"2024_118 cr_1".into()));
        assert_eq!(of(" "), [""; 0]);
    }
}
