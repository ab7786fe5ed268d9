//! Whether a long backlog is worked off as fast at its end as at its beginning.

use crate::{
    meter::Meter,
    process::{Relay, until},
    report::{Line, joined, print, ratio},
    stock,
    verify::Kept,
    world::World,
};
use serde_json::json;
use std::time::Instant;

const PARTS: u32 = 10;

pub(crate) async fn run(n: u32) -> anyhow::Result<()> {
    let world = World::with(stock::waiting(n).await?, n, stock::pairs_of(n)).await?;
    let meter = Meter::start(&world.database).await?;
    let started = Instant::now();
    let mut relays = [Relay::start(&world, &["run"]).await?];
    // (seconds, messages ended), at the beginning and at each look
    let mut looks = vec![(0.0, 0.0)];
    until(
        &mut relays,
        |counts| counts.done() + counts.dead() >= n.into(),
        |counts| {
            #[expect(clippy::cast_precision_loss, reason = "millions at most")]
            looks.push((started.elapsed().as_secs_f64(), (counts.done() + counts.dead()) as f64));
        },
    )
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    let [relay] = relays;
    let usage = relay.stop().await?;
    let part = f64::from(n) / f64::from(PARTS);
    let reached: Vec<f64> = (0..=PARTS).map(|at| time_of(&looks, part * f64::from(at))).collect();
    let rates: Vec<f64> = reached
        .windows(2)
        .filter_map(|times| Some((part / (times.get(1)? - times.first()?)).round()))
        .collect();
    let last_to_first = ratio(rates.last().copied().unwrap_or(0.0), rates.first().copied().unwrap_or(0.0));
    let rest = joined([
        world.result(meter, Kept::InMongoAndLedger).await?,
        usage.json("relay"),
        json!({ "rate_of_each_tenth": rates }),
    ]);
    let rate = f64::from(n) / seconds;
    Line { bench: "backlog", variant: "relay", run: 1, n: n.into(), seconds, rate, rest }.print()?;
    print(&json!({ "bench": "backlog", "last_tenth_to_first": last_to_first }))
}

/// When this many messages had ended, on the line between the looks before and after.
fn time_of(looks: &[(f64, f64)], ended: f64) -> f64 {
    let between = looks.windows(2).find_map(|pair| match pair {
        [(from, before), (to, after)] if *after >= ended && after > before => {
            Some(from + (to - from) * (ended - before).max(0.0) / (after - before))
        }
        _ => None,
    });
    between.unwrap_or(0.0)
}
