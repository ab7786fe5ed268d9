//! The command line of the chaos runs: see the library.

use chaos::run::{Arguments, run};
use clap::Parser;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // a run that is cut off ends all that it has started, as at its end
    let ended = tokio::select! {
        ended = run(&arguments) => ended,
        () = asked_to_end() => Err(anyhow::anyhow!("cut off: nothing was compared")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            testkit::report::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn asked_to_end() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
