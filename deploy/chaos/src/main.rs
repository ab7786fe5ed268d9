//! The command line of the chaos runs: see the library.

use chaos::run::{Arguments, run};
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            testkit::report::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
