//! The rival: pgbench, one transaction per request, without HTTP, signatures or JSON.

use crate::requests::THREE_ROWS;
use anyhow::{Context as _, bail};
use std::{path::PathBuf, time::Instant};
use testkit::Database;
use tokio::process::Command;

/// About `n` transactions by so many clients; seconds and transactions per second.
pub(crate) async fn run(n: u32, clients: u16) -> anyhow::Result<(f64, f64)> {
    let database = Database::new().await;
    let script = std::env::temp_dir().join(format!("ingest-pgbench-{}.sql", std::process::id()));
    std::fs::write(&script, THREE_ROWS.replace('\n', " ") + ";\n")?;
    let folder = PathBuf::from(std::env::var_os("POSTGRES_BIN").unwrap_or_default());
    let started = Instant::now();
    let output = Command::new(folder.join("pgbench"))
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()])
        .args(["-t", &(n / u32::from(clients)).max(1).to_string(), "-f"])
        .arg(&script)
        .arg(&database.url)
        .kill_on_drop(true)
        .output()
        .await
        .context("pgbench: install Postgres' programs, or set POSTGRES_BIN to their folder")?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(script)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rest| rest.split_whitespace().next()).and_then(|rate| rate.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok((seconds, rate)),
        _ => bail!("pgbench: {}", String::from_utf8_lossy(&output.stderr)),
    }
}
