//! The bare loop that the relay is compared with: claim, one update command, one finish, in sequence on one connection each.
//!
//! It does what cannot be left out of moving the messages from one server to the other, as fast as that goes, and nothing of what
//! makes it safe: no lease, no fence, no matching (the target follows from the payload), no guard, no mail, no ledger, no decision.
//! Of several messages of one entry in a batch only the last is sent, which is faster than one statement for each.

use crate::{stock, world::World};
use anyhow::{Context as _, bail};
use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
};
use shared::message::CreditorDebtUpdate;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio_postgres::types::Json;

const CLAIM: &str = "with picked as materialized (
    select id from outbox_messages
    where id >= $1 and operation = 'creditor_debt_update' and processed_at is null and dead_at is null
        and (claimed_until is null or claimed_until <= now())
    order by id limit $2 for update skip locked)
update outbox_messages o set claimed_until = now() + interval '15 s', claimed_by = 'bare', claim_count = o.claim_count + 1,
    unfinished_claims = o.unfinished_claims + 1
from picked where o.id = picked.id returning o.id, o.payload";

const FINISH: &str =
    "update outbox_messages set processed_at = now(), outcome = 'applied', claim_count = claim_count + 1,
    unfinished_claims = 0, claimed_until = null, claimed_by = null where id = any($1)";

/// Drains the world's outbox; the time from the first claim to the last finish.
pub(crate) async fn drain(world: &World, batch: i64) -> anyhow::Result<Duration> {
    let sql = shared::postgres::connect(&world.database.url, "bare").await?;
    let (claim, finish) = (sql.prepare(CLAIM).await?, sql.prepare(FINISH).await?);
    let mongo = world.mongo.clients.client().database(&world.mongo.name);
    mongo.run_command(doc! { "ping": 1 }).await?;
    let mut mark = 0_i64;
    let started = Instant::now();
    loop {
        let rows = sql.query(&claim, &[&mark, &batch]).await?;
        let mut claims: Vec<(i64, CreditorDebtUpdate)> =
            rows.iter().map(|row| (row.get(0), row.get::<_, Json<CreditorDebtUpdate>>(1).0)).collect();
        claims.sort_unstable_by_key(|(id, _)| *id);
        let Some((last, _)) = claims.last() else { return Ok(started.elapsed()) };
        mark = last + 1;
        let ids: Vec<i64> = claims.iter().map(|(id, _)| *id).collect();
        apply(&mongo, claims).await?;
        sql.execute(&finish, &[&ids]).await?;
    }
}

async fn apply(mongo: &Database, claims: Vec<(i64, CreditorDebtUpdate)>) -> anyhow::Result<()> {
    let mut last = BTreeMap::new();
    for (_, update) in claims {
        let number = update.reference_numbers.first().context("a message of the stock names its pair")?;
        last.insert(stock::pair_of(number)?, update);
    }
    let updates =
        last.iter().map(|(pair, update)| statement(*pair, update)).collect::<anyhow::Result<Vec<_>>>()?;
    let count = updates.len();
    let command = doc! {
        "update": "clients", "ordered": false, "updates": updates, "writeConcern": { "w": "majority", "j": true },
    };
    let reply = mongo.run_command(command).await?;
    if reply.contains_key("writeErrors") || usize::try_from(reply.get_i32("nModified")?)? != count {
        bail!("MongoDB did not apply a bare batch");
    }
    Ok(())
}

/// The same fields as the relay sets, but for its mark.
fn statement(pair: u32, update: &CreditorDebtUpdate) -> anyhow::Result<Document> {
    let amount = update.new_debt_amount.context("a message of the stock has an amount")?.to_f64();
    let received = DateTime::from_millis(update.received_at.as_millisecond());
    let set = doc! {
        "final_creditor_list.$[e].current_debt_amount": amount,
        "final_creditor_list.$[e].creditor_response_amount": amount,
        "final_creditor_list.$[e].amount_source": "creditor_response",
        "final_creditor_list.$[e].response_received_at": received,
        "final_creditor_list.$[e].last_contacted_at": received,
        "final_creditor_list.$[e].contact_status": "responded",
        "final_creditor_list.$[e].extraction_confidence": update.extraction_confidence,
        "final_creditor_list.$[e].creditor_response_text": &update.response_text,
        "final_creditor_list.$[e].response_reference_numbers": &update.reference_numbers,
    };
    let filter = doc! { "e.id": stock::entry_id(pair) };
    Ok(doc! { "q": { "_id": stock::client_id(pair) }, "u": { "$set": set }, "arrayFilters": [filter] })
}
