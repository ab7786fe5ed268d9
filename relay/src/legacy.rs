//! `relay import-legacy`: takes over the mails, keys and unfinished messages of the service that this one replaces.
//!
//! Reads the old database twice in one view: first what that service has written and when (`plan.rs` says why), then page by page what
//! becomes of each mail. A mail that is here already stays as it is, so the import may be repeated, interrupted, and run while the new
//! ingest takes mails. The old service has to be stopped before: what it does after the view is taken is not seen.

mod content;
mod mail_row;
mod old;
mod plan;
mod report;
mod store;

use crate::{mode, operator, workers::Identity};
use jiff::Timestamp;
use old::{Old, OldMail, PAGE};
use plan::{History, Planned};
use serde_json::{Value, json};
use shared::{outbox::POKE, postgres::Connection};
use std::collections::BTreeSet;

pub use mail_row::IMPORTED;
pub use report::{Imported, Problem};

/// The source of every mail of the old service, as far as its ids tell: a repeat by another provider is not known as one.
const SOURCE: &str = "zendesk";

/// What is imported, and how.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The tenant, where the old database has several.
    pub kanzlei: Option<String>,
    /// Whether anything is written; else it is only said what would be.
    pub apply: bool,
    /// Who.
    pub by: String,
}

/// Why nothing, or not all, was imported.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// The old database.
    #[error("the old database: {}", shared::postgres::reason(.0))]
    Old(tokio_postgres::Error),
    /// It is another one.
    #[error(
        "LEGACY_DATABASE_URL does not lead to the replaced service's tables: incoming_emails with zendesk_webhook_id, and outbox_messages"
    )]
    Layout,
    /// Its mails would never be written, and it is thrown away.
    #[error(
        "this is a shadow's database (RELAY_SHADOW): import into a new one, for relays that write MongoDB"
    )]
    Shadow,
    /// Whose mails?
    #[error("the old database has mails of several kanzlei_id: {0}; name one with --kanzlei")]
    Tenants(String),
    /// This database.
    #[error(
        "Postgres: {}; what was imported until then stays, and the same command again goes on",
        shared::postgres::reason(.0)
    )]
    Postgres(#[from] tokio_postgres::Error),
}

/// Imports everything that is not here yet.
///
/// # Errors
/// [`LegacyError`]; pages that were imported until then stay.
pub async fn import(
    connection: &mut Connection,
    old: &mut tokio_postgres::Client,
    wish: &Wish,
) -> Result<Imported, LegacyError> {
    let old = Old::open(old).await?;
    let mut imported = Imported { dry_run: !wish.apply, ..Imported::default() };
    let history = look_back(&old, wish, &mut imported).await?;
    // From now on no shadow takes the database, whose mails it would settle without writing one.
    let worker = Identity::of_this_process().worker;
    if mode::is_shadow(connection).await? == Some(true)
        || wish.apply && mode::admit(connection, false, &worker).await?.is_some()
    {
        return Err(LegacyError::Shadow);
    }
    let mut after = i64::MIN;
    loop {
        let page = old.mails(after).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        let page: Vec<OldMail> = page.into_iter().filter(|mail| is_meant(mail, wish)).collect();
        import_page(connection, &page, &history, wish, &mut imported).await?;
    }
    for id in old.orphans().await? {
        imported.leave_out("outbox_messages", id, "it names no mail");
    }
    if old.has_keys {
        import_keys(connection, &old, wish, &mut imported).await?;
    }
    if wish.apply && imported.imported > 0 {
        let transaction = connection.transaction().await?;
        let mut detail = json!(imported);
        if let Some(detail) = detail.as_object_mut() {
            detail.remove("problems");
        }
        operator::record(&transaction, &wish.by, "import", None, None, detail).await?;
        transaction.commit().await?;
        connection.batch_execute(POKE).await?;
    }
    Ok(imported)
}

/// What the old service has written, and when. One tenant at a time.
async fn look_back(old: &Old<'_>, wish: &Wish, imported: &mut Imported) -> Result<History, LegacyError> {
    let (mut history, mut tenants, mut after) = (History::default(), BTreeSet::new(), i64::MIN);
    loop {
        let page = old.mails(after).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for mail in &page {
            tenants.extend(mail.row.text("kanzlei_id"));
            if is_meant(mail, wish) {
                imported.emails += 1;
                history.add(mail);
            }
            let changed = ["updated_at", "created_at"].iter().find_map(|name| mail.row.time(name));
            imported.newest_change = imported.newest_change.max(changed);
        }
    }
    if tenants.len() > 1 && wish.kanzlei.is_none() {
        return Err(LegacyError::Tenants(tenants.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(history)
}

fn is_meant(mail: &OldMail, wish: &Wish) -> bool {
    wish.kanzlei.is_none() || mail.row.text("kanzlei_id") == wish.kanzlei
}

async fn import_page(
    connection: &mut Connection,
    page: &[OldMail],
    history: &History,
    wish: &Wish,
    imported: &mut Imported,
) -> Result<(), LegacyError> {
    let ids: Vec<i64> = page.iter().map(|mail| mail.id).collect();
    let webhook_ids: Vec<String> = page.iter().map(mail_row::webhook_id).collect();
    let (known, known_webhooks) = store::known(connection, &ids, &webhook_ids).await?;
    let is_new =
        |mail: &&OldMail| !known.contains(&mail.id) && !known_webhooks.contains(&mail_row::webhook_id(mail));
    let new: Vec<&OldMail> = page.iter().filter(is_new).collect();
    imported.known += page.len() - new.len();
    let ids = match wish.apply {
        true => store::ids(connection, new.len()).await?,
        false => vec![1; new.len()],
    };
    let mut planned = Vec::new();
    for (mail, id) in new.into_iter().zip(ids) {
        match plan::plan(mail, id, history) {
            Ok(plan) => planned.push((mail.id, id, plan)),
            Err(reason) => imported.leave_out_email(mail.id, reason),
        }
    }
    if !wish.apply {
        planned.iter().for_each(|(_, _, plan)| imported.count(plan.kind));
        return Ok(());
    }
    store_halving(connection, &planned, imported).await
}

/// A row that the tables refuse does not keep the others from them.
async fn store_halving(
    connection: &mut Connection,
    planned: &[(i64, i64, Planned)],
    imported: &mut Imported,
) -> Result<(), LegacyError> {
    let mut parts = vec![planned];
    while let Some(part) = parts.pop() {
        let mails: Vec<&Value> = part.iter().map(|(_, _, plan)| &plan.mail).collect();
        let messages: Vec<&Value> = part.iter().filter_map(|(_, _, plan)| plan.message.as_ref()).collect();
        let transaction = connection.transaction().await?;
        match (store::store(&transaction, &mails, &messages).await, part) {
            (Ok(new), part) => {
                transaction.commit().await?;
                for (_, id, plan) in part {
                    match new.contains(id) {
                        true => imported.count(plan.kind),
                        false => imported.known += 1,
                    }
                }
            }
            (Err(error), part)
                if error.code().is_some_and(|code| matches!(code.code().get(..2), Some("22" | "23"))) =>
            {
                transaction.rollback().await?;
                match part {
                    [(old_id, _, _)] => {
                        let constraint = error.as_db_error().and_then(|server| server.constraint());
                        let reason = format!("refused by {}", constraint.unwrap_or("the type of a column"));
                        imported.leave_out_email(*old_id, &reason);
                    }
                    part => parts.extend([part.split_at(part.len() / 2).1, part.split_at(part.len() / 2).0]),
                }
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keys whose result names a mail: a repeat under such a key is answered with that mail. Those of the old service's writes are none of
/// requests; they stand in the mails' own column.
async fn import_keys(
    connection: &Connection,
    old: &Old<'_>,
    wish: &Wish,
    imported: &mut Imported,
) -> Result<(), LegacyError> {
    let mut after = i64::MIN;
    loop {
        let page = old.keys(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.integer("id").unwrap_or(i64::MAX);
        let named = |row: &old::Row| row.object("result").and_then(|result| result.integer("email_id"));
        let ids: Vec<i64> = page.iter().filter_map(named).collect();
        let ours = store::ours(connection, &ids).await?;
        let mut keys = Vec::new();
        for row in &page {
            let id = row.integer("id").unwrap_or_default();
            imported.keys += 1;
            let key = row.text("key").map(|key| format!("{SOURCE}:{key}"));
            let key = key.filter(|key| key.chars().count() <= 300);
            // In a dry run the mails are not here yet.
            let email = named(row).and_then(|id| if wish.apply { ours.get(&id).copied() } else { Some(id) });
            match (key, email, row.time("expires_at")) {
                (Some(key), Some(email), Some(expires_at)) => keys.push(json!({
                    "key": key, "expires_at": expires_at,
                    "created_at": row.time("created_at").filter(|at| *at < expires_at).unwrap_or(Timestamp::UNIX_EPOCH),
                    "result": { "status": "accepted", "message": "stored; it will be processed", "email_id": email },
                })),
                _ => imported.leave_out("idempotency_keys", id, "its result names no imported mail: no request's key"),
            }
        }
        let new = match wish.apply {
            true => store::store_keys(connection, &keys).await?,
            false => {
                let names: Vec<String> =
                    keys.iter().filter_map(|key| Some(key.get("key")?.as_str()?.to_owned())).collect();
                keys.len() as u64 - store::known_keys(connection, &names).await?
            }
        };
        imported.imported_keys += new;
        imported.known_keys += keys.len() as u64 - new;
        if i64::try_from(page.len()).is_ok_and(|length| length < PAGE) {
            return Ok(());
        }
    }
}
