//! `relay pause` and `relay resume`.

use super::{connection, person, reason, whoever};
use crate::pauses::{self, Pause};
use clap::Args;
use serde::Serialize;
use shared::{message::Operation, postgres::reason as reason_of, process::Secret};

/// The flags of `relay pause`.
#[derive(Debug, Clone, Args)]
pub(super) struct PauseArguments {
    /// The operation's name
    #[arg(value_parser = operation)]
    operation: Operation,
    /// Why; shown in `relay status`
    #[arg(long, default_value = "no reason given", value_parser = reason)]
    reason: String,
    /// Who pauses it
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

/// The flags of `relay resume`.
#[derive(Debug, Clone, Args)]
pub(super) struct ResumeArguments {
    /// The operation's name
    #[arg(value_parser = operation)]
    operation: Operation,
    /// Who resumes it
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

/// What both print with `--json`.
#[derive(Debug, Serialize)]
struct Result {
    /// The operation.
    operation: &'static str,
    /// Whether it is paused now.
    paused: bool,
    /// Whether this call changed that.
    changed: bool,
    /// The pause that is there now, or was until now.
    pause: Option<Pause>,
}

/// An operation by its name.
pub(super) fn operation(text: &str) -> std::result::Result<Operation, String> {
    let names = || Operation::ALL.map(Operation::name).join(", ");
    let found = Operation::ALL.into_iter().find(|operation| operation.name() == text.trim());
    found.ok_or_else(|| format!("there is no such operation; there are {}", names()))
}

fn failed(error: tokio_postgres::Error) -> anyhow::Error {
    anyhow::anyhow!("Postgres: {}", reason_of(&error))
}

pub(super) async fn pause(arguments: &PauseArguments, json: bool, url: &Secret) -> anyhow::Result<()> {
    let PauseArguments { operation, reason, by } = arguments;
    let mut connection = connection(url).await?;
    let changed = pauses::pause(&mut connection, *operation, reason, by).await.map_err(failed)?;
    let name = operation.name();
    let pause =
        pauses::list(&connection).await.map_err(failed)?.into_iter().find(|pause| pause.operation == name);
    if json {
        println!("{}", serde_json::to_string(&Result { operation: name, paused: true, changed, pause })?);
    } else if changed {
        println!("{name} is paused: every relay stops claiming it within 2 s; what is under way ends");
        println!("go on with: relay resume {name}");
    } else if let Some(Pause { paused_at, actor, reason, .. }) = pause {
        println!("{name} was paused already, by {actor} since {paused_at:.0}: {reason}");
    }
    Ok(())
}

pub(super) async fn resume(arguments: &ResumeArguments, json: bool, url: &Secret) -> anyhow::Result<()> {
    let ResumeArguments { operation, by } = arguments;
    let pause = pauses::resume(&mut connection(url).await?, *operation, by).await.map_err(failed)?;
    let (name, changed) = (operation.name(), pause.is_some());
    if json {
        println!("{}", serde_json::to_string(&Result { operation: name, paused: false, changed, pause })?);
    } else if let Some(Pause { paused_at, actor, .. }) = pause {
        println!("{name} goes on; it was paused by {actor} since {paused_at:.0}");
    } else {
        println!("{name} was not paused");
    }
    Ok(())
}
