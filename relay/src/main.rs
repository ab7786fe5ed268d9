//! The program `relay`; everything is in the library.

use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    relay::cli::main(relay::cli::Cli::parse()).await
}
