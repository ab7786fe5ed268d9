//! `deploy/dev bench ingest` and `hostile`: what ingest does in figures, each result one JSON object on a line of standard output.
//!
//! Ingest is measured as the program that is installed: built for release and started as a process with its defaults. Each
//! measured run has a database of its own, and what it stored is counted after it.
//!
//! - [`hostile`]: beside attackers; [`requests`]: what is sent; [`load`]: the connections that send it; [`service`]: the program; [`pgbench`]: the rival

#![allow(clippy::disallowed_methods, reason = "what a bench asks, it asks Postgres itself")]

mod hostile;
mod load;
mod pgbench;
mod requests;
mod service;

use anyhow::ensure;
use clap::{Parser, Subcommand};
use requests::Kind;
use serde_json::{Value, json};
use service::Service;
use std::{process::ExitCode, time::Duration};
use testkit::{
    Database,
    report::{self, Figures, Line, joined, percentile, print, ratio, rounded, say},
};

/// Mails that are there before.
const THERE: u32 = 200_000;
/// Fast connections, and as many slow ones.
const MANY: usize = 500;
/// Requests a second, and for how long.
const CALM: (u32, Duration) = (100, Duration::from_secs(20));

#[derive(Debug, Parser)]
#[command(name = "deploy/dev bench", override_help = include_str!("help.txt"))]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Passed by cargo.
    #[arg(long = "bench", global = true, hide = true)]
    _by_cargo: bool,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Ingest {
        #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
        connections: u16,
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=100))]
        clients: u16,
    },
    Hostile {
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
    },
}

/// One way of loading the service.
struct Variant {
    name: &'static str,
    kind: Kind,
    environment: &'static [(&'static str, &'static str)],
    /// Every so manyth request is a repeat; 0 = none.
    repeats: u32,
    /// Whether mails are there before.
    filled: bool,
}

const PLAIN: Variant =
    Variant { name: "debt-updates", kind: Kind::DebtUpdate, environment: &[], repeats: 0, filled: false };
const VARIANTS: [Variant; 5] = [
    PLAIN,
    Variant { name: "debt-updates, --batch-max 1", environment: &[("INGEST_BATCH_MAX", "1")], ..PLAIN },
    Variant { name: "debt-updates, a tenth repeated", repeats: 10, ..PLAIN },
    Variant { name: "debt-updates, 200000 mails there", filled: true, ..PLAIN },
    Variant { name: "zendesk", kind: Kind::Zendesk, ..PLAIN },
];

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` passes --bench. A test runner that looks into every target does not, and nothing may run then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let bench = Arguments::parse().bench;
    let measure = async {
        match bench {
            Bench::Ingest { n, runs, connections, clients } => {
                run(n, runs, connections.into(), clients).await
            }
            Bench::Hostile { n, runs } => hostile::run(n, runs).await,
        }
    };
    // A bench that is told to end drops its databases and its program first.
    let result = match shared::process::shutdown_on_signal(true) {
        Ok(shutdown) => shutdown
            .run_until_cancelled(measure)
            .await
            .unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal"))),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: could not measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(n: u32, runs: u32, connections: usize, clients: u16) -> anyhow::Result<()> {
    report::machine().await?;
    let filled = Database::new().await;
    say(&format!("{THERE} mails"));
    requests::fill(&filled, THERE).await?;
    let mut rates = Figures::default();
    let mut slowest = Figures::default();
    for run in 1..=runs {
        let (seconds, rate) = pgbench::run(n, clients).await?;
        rates.add("pgbench", rate);
        Line {
            bench: "ingest",
            variant: "pgbench",
            run,
            n: n.into(),
            seconds,
            rate,
            rest: json!({ "clients": clients }),
        }
        .print()?;
        for variant in &VARIANTS {
            let (seconds, rate, rest) = measured(variant, &filled, n, connections).await?;
            rates.add(variant.name, rate);
            slowest.add(variant.name, rest.pointer("/ms/p99").and_then(Value::as_f64).unwrap_or_default());
            Line { bench: "ingest", variant: variant.name, run, n: n.into(), seconds, rate, rest }.print()?;
        }
    }
    let calm = calm().await?;
    let mut slow = Figures::default();
    for run in 1..=runs {
        for (name, count) in [("500 fast connections", 0), ("500 fast and 500 slow connections", MANY)] {
            let (rate, rest) = crowded(n, count).await?;
            slow.add(name, rate);
            let seconds = f64::from(n) / rate;
            Line { bench: "ingest", variant: name, run, n: n.into(), seconds, rate, rest }.print()?;
        }
    }
    let to = |of: &str, to: &str| ratio(rates.median(of), rates.median(to));
    print(&json!({
        "bench": "ingest", "rates": rates.spread(), "p99_ms": slowest.spread(), "calm_ms": calm, "crowded": slow.spread(),
        "ratios": {
            "debt-updates to pgbench": to("debt-updates", "pgbench"), "zendesk to pgbench": to("zendesk", "pgbench"),
            "to --batch-max 1": to("debt-updates", "debt-updates, --batch-max 1"),
            "a tenth repeated to none": to("debt-updates, a tenth repeated", "debt-updates"),
            "200000 mails there to none": to("debt-updates, 200000 mails there", "debt-updates"),
            "beside slow connections to alone":
                ratio(slow.median("500 fast and 500 slow connections"), slow.median("500 fast connections")),
        },
    }))?;
    report::end()
}

/// Sends all, as fast as the answers come; seconds, rate, and what belongs to it.
async fn measured(
    variant: &Variant,
    filled: &Database,
    n: u32,
    connections: usize,
) -> anyhow::Result<(f64, f64, Value)> {
    let database = if variant.filled { filled.copy().await } else { Database::new().await };
    let service = Service::start(&database, variant.environment).await?;
    let requests = requests::many(variant.kind, n, variant.repeats);
    let outcome = load::send_all(service.address, connections, requests).await?;
    let usage = service.stop().await?;
    let new = n - n.checked_div(variant.repeats).unwrap_or(0);
    ensure!(outcome.all_ok, "{}: an answer was not 200", variant.name);
    let before = if variant.filled { THERE } else { 0 };
    let stored = requests::stored(&database).await?;
    ensure!(stored == i64::from(before + new), "{}: {stored} mails stored", variant.name);
    let rest = joined([
        json!({ "connections": connections, "ms": spread(&outcome.milliseconds) }),
        usage.json("ingest"),
    ]);
    Ok((outcome.seconds, f64::from(n) / outcome.seconds, rest))
}

/// At a low rate: the time of each.
async fn calm() -> anyhow::Result<Value> {
    let database = Database::new().await;
    let service = Service::start(&database, &[]).await?;
    let (rate, time) = CALM;
    let n = rate * u32::try_from(time.as_secs())?;
    let requests = requests::many(Kind::DebtUpdate, n, 0);
    let milliseconds = load::send_evenly(service.address, rate, requests).await?;
    service.stop().await?;
    let spread = spread(&milliseconds);
    print(&json!({ "bench": "ingest", "variant": "100 requests a second", "run": 1, "n": n, "ms": spread }))?;
    Ok(spread)
}

/// Many fast connections, beside others that never finish their requests; rate, and what belongs to it.
async fn crowded(n: u32, slow: usize) -> anyhow::Result<(f64, Value)> {
    let database = Database::new().await;
    let service = Service::start(&database, &[]).await?;
    let crowd = load::slow_crowd(service.address, slow).await?;
    let outcome = load::send_all(service.address, MANY, requests::many(Kind::DebtUpdate, n, 0)).await?;
    drop(crowd);
    ensure!(outcome.all_ok, "an answer was not 200");
    let usage = service.stop().await?;
    let rest = joined([json!({ "ms": spread(&outcome.milliseconds) }), usage.json("ingest")]);
    Ok((f64::from(n) / outcome.seconds, rest))
}

fn spread(milliseconds: &[f64]) -> Value {
    let at = |share: f64| rounded(percentile(milliseconds, share));
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}
