//! Ways to keep and take messages in Postgres, without MongoDB: claim, nothing, finish, on one connection in sequence.

mod ways;

use crate::{
    meter::Meter,
    report::{Figures, Line, joined, print, ratio, say},
    stock,
};
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::Database;
use tokio_postgres::{Client, types::Json};
use ways::{OURS, WAYS, Way};

/// Messages in the settings that have other rows beside those to work off.
const DEFERRED: u32 = 100_000;
const FINISHED: u32 = 1_000_000;

/// What else is in the table, or goes on beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Plain,
    Deferred,
    Finished,
    HeldXmin,
}

impl Setting {
    const ALL: [Setting; 4] = [Setting::Plain, Setting::Deferred, Setting::Finished, Setting::HeldXmin];

    const fn name(self) -> &'static str {
        match self {
            Setting::Plain => "plain",
            Setting::Deferred => "deferred rows",
            Setting::Finished => "finished rows",
            Setting::HeldXmin => "held xmin",
        }
    }

    /// What is done to the rows that come before the waiting ones, and how many there are.
    const fn others(self) -> (u32, &'static str) {
        match self {
            Setting::Plain | Setting::HeldXmin => (0, ""),
            Setting::Deferred => (
                DEFERRED,
                "update outbox_messages set deferred = true, available_at = now() + interval '1 day', claim_count = 2, retry_count = 1",
            ),
            Setting::Finished => (
                FINISHED,
                "update outbox_messages set processed_at = now(), outcome = 'applied', claim_count = 2",
            ),
        }
    }
}

pub(crate) async fn run(n: u32, runs: u32, only: &[String]) -> anyhow::Result<()> {
    let mut summary = serde_json::Map::new();
    let chosen =
        |setting: &Setting| only.is_empty() || only.iter().any(|word| setting.name().starts_with(word));
    for setting in Setting::ALL.into_iter().filter(chosen) {
        say(&format!("{}: seeding", setting.name()));
        let stock = seeded(n, setting).await?;
        let mut rates = Figures::default();
        for run in 1..=runs {
            for way in &WAYS {
                // As many rows as are worth waiting for: each is a commit of its own.
                let limit = if way.batch == 1 { n.div_ceil(10) } else { n };
                let (seconds, rest) = measured(&stock, way, setting, limit).await?;
                let rate = f64::from(limit) / seconds;
                rates.add(way.name, rate);
                Line { bench: "claim", variant: way.name, run, n: limit.into(), seconds, rate, rest }
                    .print()?;
            }
        }
        let to_ours =
            WAYS.iter().map(|way| (way.name.to_owned(), ratio(rates.median(way.name), rates.median(OURS))));
        let to_ours: Value = to_ours.collect();
        summary
            .insert(setting.name().to_owned(), json!({ "rates": rates.spread(), "ratio_to_ours": to_ours }));
    }
    print(&json!({ "bench": "claim", "ours": OURS, "summary": summary }))
}

/// A database in this setting, to be copied for each run.
async fn seeded(n: u32, setting: Setting) -> anyhow::Result<Database> {
    let database = Database::new().await;
    let sql = stock::connect(&database).await?;
    let (others, change) = setting.others();
    if others > 0 {
        let work = format!("select i, i % {n} as pair from generate_series({n} + 1, {n} + {others}) i");
        sql.batch_execute(&stock::insert_without_mails(&work)).await?;
        sql.batch_execute(change).await?;
    }
    sql.batch_execute(&stock::insert_without_mails(&stock::shuffled(n))).await?;
    sql.batch_execute("vacuum analyze").await?;
    Ok(database)
}

/// Works off `limit` messages of a copy; seconds, and what Postgres counted.
async fn measured(stock: &Database, way: &Way, setting: Setting, limit: u32) -> anyhow::Result<(f64, Value)> {
    let database = stock.copy().await;
    let bench = stock::connect(&database).await?;
    bench.batch_execute(way.schema).await?;
    bench.batch_execute("vacuum analyze outbox_messages").await?;
    bench.batch_execute("checkpoint").await?;
    let holder = stock::connect(&database).await?;
    if setting == Setting::HeldXmin {
        holder
            .batch_execute("begin isolation level repeatable read; select from outbox_messages limit 1")
            .await?;
    }
    let meter = Meter::start(&database).await?;
    let sql = shared::postgres::connect(&database.url, "claim").await?;
    let seconds = drain(&sql, way, limit).await?.as_secs_f64();
    drop(sql);
    let counted = meter.stop(limit.into()).await?;
    let done: i64 = bench.query_one(way.done, &[]).await?.get(0);
    let before = if setting == Setting::Finished { FINISHED } else { 0 };
    let wrong = i64::from(limit) + i64::from(before) - done;
    Ok((seconds, joined([counted, json!({ "setting": setting.name(), "batch": way.batch, "wrong": wrong })])))
}

async fn drain(sql: &Client, way: &Way, limit: u32) -> anyhow::Result<Duration> {
    let (claim, finish) = (sql.prepare(way.claim).await?, sql.prepare(way.finish).await?);
    let (mut mark, mut left) = (0_i64, i64::from(limit));
    let started = Instant::now();
    while left > 0 {
        if way.holds_locks {
            sql.batch_execute("begin").await?;
        }
        let rows = sql.query(&claim, &[&mark, &left.min(way.batch)]).await?;
        // The payload has crossed the wire; a relay would read it now.
        let claims: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let Some(last) = claims.iter().map(|(id, _)| *id).max() else { break };
        mark = last + 1;
        let ended = if way.by_arrays {
            let (ids, counts): (Vec<i64>, Vec<i64>) = claims.into_iter().unzip();
            let outcomes = vec!["applied"; ids.len()];
            sql.execute(&finish, &[&ids, &counts, &outcomes]).await?
        } else {
            let row =
                |(id, count): &(i64, i64)| json!({ "id": id, "claim_count": count, "outcome": "applied" });
            let rows: Vec<Value> = claims.iter().map(row).collect();
            sql.execute(&finish, &[&Json(rows)]).await?
        };
        ensure!(ended == rows.len() as u64, "{}: a finish did not end what was claimed", way.name);
        if way.holds_locks {
            sql.batch_execute("commit").await?;
        }
        left -= i64::try_from(ended)?;
    }
    ensure!(left == 0, "{}: claims found nothing with {left} messages left", way.name);
    Ok(started.elapsed())
}
