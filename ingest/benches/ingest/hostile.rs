//! The good client's rate beside each kind of attack, against its rate without, in turns.
//!
//! The attackers have one thread, and what costs the service work is bounded: some hundreds of connections or requests a second. They
//! share the machine with what is measured, so the ratio is the least that a sender has beside them.

use crate::{
    load,
    requests::{self, Kind},
    service::Service,
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use testkit::{
    Database,
    attack::{Attack, Crowd, attacks},
    report::{self, Figures, Line, joined, print, ratio, say},
};
use tokio::time::sleep;

/// Connections of the good client, kept open.
const CONNECTIONS: usize = 16;
/// For the attackers to take their places.
const BEFORE: Duration = Duration::from_secs(5);
/// The rate without attackers.
const ALONE: &str = "alone";

pub(crate) async fn run(n: u32, runs: u32) -> anyhow::Result<()> {
    shared::process::raise_file_limit();
    report::machine().await?;
    let attacks = attacks("/v1/webhooks/zendesk");
    let mut rates = Figures::default();
    let mut to_alone = Figures::default();
    for run in 1..=runs {
        for attack in &attacks {
            say(&format!("{run} of {runs}: {}", attack.name));
            let alone = measured(n, run, ALONE, Vec::new()).await?;
            let beside = measured(n, run, attack.name, vec![attack.clone()]).await?;
            rates.add(ALONE, alone);
            rates.add(attack.name, beside);
            to_alone.add(attack.name, beside / alone);
        }
    }
    let ratios: Map<String, Value> = attacks
        .iter()
        .map(|attack| (attack.name.to_owned(), ratio(to_alone.median(attack.name), 1.0)))
        .collect();
    print(&json!({ "bench": "hostile", "rates": rates.spread(), "to_alone": ratios }))?;
    report::end()
}

async fn measured(n: u32, run: u32, name: &'static str, attacks: Vec<Attack>) -> anyhow::Result<f64> {
    let database = Database::new().await;
    let service = Service::start(&database, &[("RUST_LOG", "warn")]).await?;
    let attackers: usize = attacks.iter().map(|attack| attack.connections).sum();
    let crowd = (attackers > 0).then(|| Crowd::begin(attacks, service.address));
    if crowd.is_some() {
        sleep(BEFORE).await;
    }
    let requests = requests::many(Kind::DebtUpdate, n, 0);
    let outcome = load::send_all(service.address, CONNECTIONS, requests).await?;
    drop(crowd);
    let usage = service.stop().await?;
    // An answer that is no 200 counts for nothing.
    let stored = u32::try_from(requests::stored(&database).await?)?;
    let rate = f64::from(stored) / outcome.seconds;
    let rest = joined([
        json!({ "attackers": attackers, "stored": stored, "ms": super::spread(&outcome.milliseconds) }),
        usage.json("ingest"),
    ]);
    Line { bench: "hostile", variant: name, run, n: n.into(), seconds: outcome.seconds, rate, rest }
        .print()?;
    Ok(rate)
}
