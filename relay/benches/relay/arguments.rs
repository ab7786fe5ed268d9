//! The command line; its words for people are `help.txt`, which `deploy/dev bench` prints without building anything.

use clap::{Parser, Subcommand};

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

/// The benches.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    Drain {
        #[arg(long, default_value_t = 100_000)]
        n: u32,
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
}
