//! How fast a relay works off what waits, beside a bare loop at several batch sizes.

use crate::{
    bare,
    meter::Meter,
    process::Relay,
    report::{Figures, Line, joined, print, ratio, rounded},
    stock,
    verify::Kept,
    world::World,
};
use serde_json::{Value, json};
use testkit::Database;

const BATCHES: [i64; 3] = [200, 500, 1000];

pub(crate) async fn run(n: u32, runs: u32) -> anyhow::Result<()> {
    let stock = stock::waiting(n).await?;
    let startup = startup_seconds().await?;
    let mut rates = Figures::default();
    for run in 1..=runs {
        for batch in BATCHES {
            let variant = format!("bare {batch}");
            let world = World::of(&stock, n).await?;
            let meter = Meter::start(&world.database).await?;
            let seconds = bare::drain(&world, batch).await?.as_secs_f64();
            let rest = world.result(meter, Kept::InMongo).await?;
            rates.add(&variant, finish(&variant, run, n, seconds, rest)?);
        }
        let (seconds, rest) = relay_once(&stock, n).await?;
        let rest = joined([rest, json!({ "startup_seconds": rounded(startup) })]);
        rates.add("relay", finish("relay", run, n, seconds, rest)?);
    }
    let best = rates.best("bare").unwrap_or_default().to_owned();
    print(&json!({
        "bench": "drain", "summary": rates.spread(), "best_bare": best,
        "relay_to_best_bare": ratio(rates.median("relay"), rates.median(&best)),
    }))
}

fn finish(variant: &str, run: u32, n: u32, seconds: f64, rest: Value) -> anyhow::Result<f64> {
    let rate = f64::from(n) / seconds;
    Line { bench: "drain", variant, run, n: n.into(), seconds, rate, rest }.print()?;
    Ok(rate)
}

/// One `relay run --once` from spawn to exit; seconds, and what else is to be told.
pub(crate) async fn relay_once(stock: &Database, n: u32) -> anyhow::Result<(f64, Value)> {
    let world = World::of(stock, n).await?;
    let meter = Meter::start(&world.database).await?;
    let (time, usage) = Relay::start(&world, &["run", "--once"]).await?.ended().await?;
    let rest = joined([world.result(meter, Kept::InMongoAndLedger).await?, usage.json("relay")]);
    Ok((time.as_secs_f64(), rest))
}

/// `relay run --once` where nothing waits.
async fn startup_seconds() -> anyhow::Result<f64> {
    let empty = stock::waiting(0).await?;
    let (seconds, _) = relay_once(&empty, 0).await?;
    Ok(seconds)
}
