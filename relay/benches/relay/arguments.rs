//! The command line; its words for people are `help.txt`, which `deploy/dev bench` prints without building anything.

use clap::{Parser, Subcommand, builder::RangedI64ValueParser};
use relay::config::ExtractorSettings;
use std::path::PathBuf;

/// A bench and its options.
#[derive(Debug, Parser)]
#[command(name = "deploy/dev bench", override_help = include_str!("help.txt"))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) bench: Bench,
    /// Passed by cargo.
    #[arg(long = "bench", global = true, hide = true)]
    _by_cargo: bool,
}

fn messages() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(100..=20_000_000)
}

fn times() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=100_000)
}

fn shares() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=99)
}

/// The benches. A size of 0 would measure nothing.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    Drain {
        #[arg(long, default_value_t = 100_000, value_parser = messages())]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
    },
    Workers {
        #[arg(long, default_value_t = 100_000, value_parser = messages())]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
    },
    Latency {
        #[arg(long, default_value_t = 200, value_parser = times())]
        rate: u32,
        #[arg(long, default_value_t = 60, value_parser = times())]
        seconds: u32,
        #[arg(long, default_value_t = 200, value_parser = times())]
        idle_times: u32,
        #[arg(long, default_value_t = 30, value_parser = times())]
        idle_seconds: u32,
        #[arg(long)]
        pgbouncer: bool,
    },
    Backlog {
        #[arg(long, default_value_t = 1_000_000, value_parser = messages())]
        n: u32,
    },
    Reconcile {
        #[arg(long, default_value_t = 100_000, value_parser = messages())]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
    },
    Poison {
        #[arg(long, default_value_t = 50_000, value_parser = messages())]
        n: u32,
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50], value_parser = shares())]
        share: Vec<u32>,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
    },
    Xmin {
        #[arg(long, default_value_t = 600, value_parser = times())]
        seconds: u32,
        #[arg(long, default_value_t = 2000, value_parser = times())]
        rate: u32,
        #[arg(long, default_value_t = 100_000, value_parser = messages())]
        drain: u32,
    },
    Soak {
        #[arg(long, default_value_t = 1800, value_parser = times())]
        seconds: u32,
        #[arg(long, value_parser = times())]
        rate: Option<u32>,
    },
    Claim {
        #[arg(long, default_value_t = 100_000, value_parser = messages())]
        n: u32,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
        #[arg(long, value_delimiter = ',')]
        setting: Vec<String>,
    },
    Extraction {
        #[arg(long, default_value = "deploy/samples/mails")]
        folder: PathBuf,
        #[arg(long, default_value_t = 3, value_parser = times())]
        runs: u32,
        #[command(flatten)]
        extractor: Box<ExtractorSettings>,
    },
}
