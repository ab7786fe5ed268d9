//! `relay status`: one look, or one every two seconds until Ctrl-C.

mod view;

use crate::{
    outbox::Floors,
    status::{Status, look},
};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use shared::{
    postgres::{self, Pool, abandon, pool_reason, reason},
    process::Secret,
};
use std::{
    io::{IsTerminal, Write as _},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use view::Style;

/// A watched screen is drawn this often.
const EVERY: Duration = Duration::from_secs(2);
/// How long one look walks through the outbox; the next one goes on from there.
const BUDGET: Duration = Duration::from_secs(3);
/// A server that does not answer a look within this is as good as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// The flags of `relay status`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatusArguments {
    /// Draw it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Prints what waits, who works, and what is in the way.
///
/// # Errors
/// Postgres is away; while watching that is shown instead, and waited out.
pub(super) async fn run(arguments: &StatusArguments, json: bool, url: &Secret) -> anyhow::Result<()> {
    let pool = postgres::pool(url.expose(), "relay-operator", 1, Duration::from_secs(5))?;
    let style = Style::of_this_terminal();
    if !arguments.watch {
        let status = ask(&pool, &Floors::new()).await.map_err(anyhow::Error::msg)?;
        if json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            print!("{}", view::draw(&status, style));
        }
        return Ok(());
    }
    tokio::select! {
        result = watch(&pool, json, style) => result,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Until its future is dropped, or nobody reads it any more.
async fn watch(pool: &Pool, json: bool, style: Style) -> anyhow::Result<()> {
    let in_place = !json && std::io::stdout().is_terminal();
    let mut floors = Floors::new();
    loop {
        let result = ask(pool, &floors).await;
        let at = Timestamp::now();
        let text = match &result {
            Ok(status) if json => serde_json::to_string(status)? + "\n",
            Ok(status) => view::draw(status, style),
            Err(text) if json => json!({ "at": at, "error": text }).to_string() + "\n",
            Err(text) => format!("relay status  {at:.0}\n\n{}\n", style.alarm(text)),
        };
        if let Ok(status) = result {
            floors.clone_from(status.floors());
        }
        if show(&text, in_place).is_err() {
            return Ok(());
        }
        sleep(EVERY).await;
    }
}

/// Over what is there, where that is possible: nothing flickers.
fn show(text: &str, in_place: bool) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if in_place {
        let text = text.replace('\n', "\x1b[K\n");
        write!(output, "\x1b[H{text}\x1b[J")?;
    } else {
        write!(output, "{text}")?;
    }
    output.flush()
}

async fn ask(pool: &Pool, floors: &Floors) -> Result<Status, String> {
    let connection = pool.get().await.map_err(|error| format!("Postgres: {}", pool_reason(&error)))?;
    match timeout(PATIENCE, look(&connection, floors, BUDGET)).await {
        Ok(result) => result.map_err(|error| format!("Postgres: {}", reason(&error))),
        Err(_) => {
            abandon(connection).await;
            Err(format!("Postgres: no answer within {} s", PATIENCE.as_secs()))
        }
    }
}
