//! `deploy/dev bench NAME`: what the relay does in figures, each result one JSON object on a line of standard output.
//!
//! `help.txt` tells every bench and its options. The relay is measured as the program that is installed: built for release and
//! started as a process. Each measured run has databases of its own, equal at the start, and is verified after it.
//!
//! - [`stock`], [`world`]: the messages and documents to work on; [`verify`]: what became of them
//! - [`process`], [`meter`], [`report`]: the relay's process, what Postgres counted, the lines
//! - one file for each bench; [`feed`] commits messages while a relay runs

#![allow(clippy::disallowed_methods, reason = "what a bench asks, it asks Postgres itself")]

mod arguments;
mod backlog;
mod bare;
mod claim;
mod drain;
mod extraction;
mod feed;
mod latency;
mod meter;
mod poison;
mod process;
mod reconcile;
mod soak;
mod stock;
mod tap;
mod verify;
mod workers;
mod world;
mod xmin;

use arguments::{Arguments, Bench};
use clap::Parser;
use std::process::ExitCode;
use testkit::report;

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` passes --bench. A test runner that looks into every target does not, and nothing may run then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    // A bench that is told to end drops its databases and its relay first.
    let result = match shared::process::shutdown_on_signal(true) {
        Ok(shutdown) => shutdown
            .run_until_cancelled(run(arguments.bench))
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

async fn run(bench: Bench) -> anyhow::Result<()> {
    // One result, and no servers to tell of.
    if matches!(bench, Bench::Extraction { .. }) {
        return measure(bench).await;
    }
    report::machine().await?;
    measure(bench).await?;
    report::end()
}

async fn measure(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Drain { n, runs } => drain::run(n, runs).await,
        Bench::Workers { n, runs } => workers::run(n, runs).await,
        Bench::Latency { rate, seconds, idle_times, idle_seconds, pgbouncer } => {
            latency::run(latency::Plan { rate, seconds, idle_times, idle_seconds, pgbouncer }).await
        }
        Bench::Backlog { n } => backlog::run(n).await,
        Bench::Reconcile { n, runs } => reconcile::run(n, runs).await,
        Bench::Poison { n, share, runs } => poison::run(n, &share, runs).await,
        Bench::Xmin { seconds, rate, drain } => xmin::run(xmin::Plan { seconds, rate, drain }).await,
        Bench::Soak { seconds, rate } => soak::run(seconds, rate).await,
        Bench::Claim { n, runs, setting } => claim::run(n, runs, &setting).await,
        Bench::Extraction { folder, runs, extractor } => extraction::run(&folder, runs, &extractor).await,
    }
}
