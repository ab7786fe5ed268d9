//! Several relays at one outbox.

use crate::{
    meter::Meter,
    process::{Relay, Usage, until},
    report::{Figures, Line, joined, print, ratio},
    stock,
    verify::Kept,
    world::World,
};
use serde_json::{Value, json};
use std::time::Instant;

const WORKERS: [u32; 3] = [1, 2, 4];

pub(crate) async fn run(n: u32, runs: u32) -> anyhow::Result<()> {
    let stock = stock::waiting(n).await?;
    let mut rates = Figures::default();
    for run in 1..=runs {
        for workers in WORKERS {
            let variant = name(workers);
            let world = World::of(&stock, n).await?;
            let meter = Meter::start(&world.database).await?;
            let started = Instant::now();
            let mut relays = Vec::new();
            for _ in 0..workers {
                relays.push(Relay::start(&world, &["run"]).await?);
            }
            until(&mut relays, |counts| counts.done() + counts.dead() >= n.into(), |_| ()).await?;
            let seconds = started.elapsed().as_secs_f64();
            let mut usage = Usage::default();
            for relay in relays {
                usage = usage.plus(relay.stop().await?);
            }
            let rest = joined([world.result(meter, Kept::InMongoAndLedger).await?, usage.json("relay")]);
            let rate = f64::from(n) / seconds;
            rates.add(&variant, rate);
            Line { bench: "workers", variant: &variant, run, n: n.into(), seconds, rate, rest }.print()?;
        }
    }
    let to_one = |workers: u32| (name(workers), ratio(rates.median(&name(workers)), rates.median(&name(1))));
    let to_one: Value = WORKERS.into_iter().map(to_one).collect();
    print(&json!({ "bench": "workers", "summary": rates.spread(), "ratio_to_one": to_one }))
}

fn name(workers: u32) -> String {
    format!("{workers} relays")
}
