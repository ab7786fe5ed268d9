//! Entries that carry a mark of ours and that the ledger does not know: what was written first to them is lost here, as after a
//! restore of Postgres to an earlier point. Reads only, but every document of MongoDB from its primary, so nothing does it by itself. The
//! ledger's own entries are `look.rs`'s.

use super::{BETWEEN_LOOKS, Drift, Finding, LOOKS, Options, Stop, Tally, ask, look::keys_of, store};
use crate::{context::Context, mongo::Place};
use shared::message::Stamp;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Documents of one page, at most.
const PAGE: u32 = 500;

/// A marked entry.
struct Marked {
    finding: Finding,
    /// The keys that the message behind its mark may have.
    keys: Vec<String>,
}

/// Walks all clients in MongoDB, and reports what Postgres has lost.
pub(super) async fn compare(context: &Context, options: Options, tally: &mut Tally) -> Result<(), Stop> {
    let clients = context.clients.doing("relay reconciliation");
    let mut place = Some(Place::default());
    while let Some(from) = place.take() {
        let began = Instant::now();
        let page = clients.page(&from, PAGE).await.map_err(Stop::MongoAway)?;
        let documents = u32::try_from(page.found.len()).unwrap_or(u32::MAX);
        let marked = page.found.iter().flat_map(|found| {
            let client_id = &found.client.client_id;
            found.client.entries.iter().filter_map(|entry| {
                let fence = entry.fence.as_ref()?;
                let finding = Finding {
                    client_id: client_id.clone(),
                    entry_key: entry.entry_key.clone(),
                    drift: Drift::Ahead,
                    email_id: None,
                    ledger_amount: None,
                    ledger_stamp: None,
                    mongodb_amount: entry.stored.known(),
                    mongodb_stamp: Some(fence.stamp.clone()),
                    mongodb_email_id: Some(fence.email_id),
                    mongodb_received_at: fence.stamp.parse::<Stamp>().ok().and_then(Stamp::time),
                    is_repaired: false,
                };
                Some(Marked { finding, keys: keys_of(entry) })
            })
        });
        for lost in unknown(context, marked.collect()).await? {
            tally.add(lost.finding);
        }
        place = page.next;
        sleep_until(began + Duration::from_secs(1) * documents / options.rows_per_second.max(1)).await;
    }
    Ok(())
}

/// Those of which Postgres knows nothing, at several looks: no row of the ledger, no message on its way, no mail that was erased.
async fn unknown(context: &Context, marked: Vec<Marked>) -> Result<Vec<Marked>, Stop> {
    let mut suspects = marked;
    for look in 0..LOOKS {
        if suspects.is_empty() {
            return Ok(suspects);
        }
        if look > 0 {
            sleep(BETWEEN_LOOKS).await;
            // The messages first, then the ledger: one that ends in between is found in the one or the other.
            let keys: Vec<String> = suspects.iter().flat_map(|suspect| suspect.keys.clone()).collect();
            let moving =
                ask(context, async |connection| store::on_their_way(connection, &keys).await).await?;
            suspects.retain(|Marked { finding, keys }| {
                let stamp = finding.mongodb_stamp.as_deref().unwrap_or_default();
                !keys.iter().any(|key| moving.get(key).is_some_and(|moving| moving == stamp))
            });
        }
        let marked: Vec<store::MarkedBy<'_>> = suspects
            .iter()
            .map(|Marked { finding, .. }| {
                (finding.client_id.as_str(), finding.entry_key.as_str(), finding.mongodb_email_id)
            })
            .collect();
        let unknown =
            ask(context, async |connection| store::not_in_ledger(connection, &marked).await).await?;
        let mut places = 1..;
        suspects.retain(|_| places.next().is_some_and(|place| unknown.contains(&place)));
    }
    Ok(suspects)
}
