//! Ingest as a process.

use crate::requests::{SECRET, TOKEN};
use anyhow::{Context as _, bail};
use std::{net::SocketAddr, process::Stdio, time::Duration};
use testkit::{Database, report::Usage};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// For its start and for its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service; killed if it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    pid: u32,
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts it on free ports, and waits until it listens.
    pub(crate) async fn start(database: &Database, environment: &[(&str, &str)]) -> anyhow::Result<Service> {
        // Ports that are free now: another process may take one until ingest does, which then ends with an error.
        let (one, other) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (address, admin) = (one.local_addr()?, other.local_addr()?);
        drop((one, other));
        let mut child = Command::new(env!("CARGO_BIN_EXE_ingest"))
            .arg("serve")
            .env("DATABASE_URL", &database.url)
            .env("INGEST_LISTEN", address.to_string())
            .env("INGEST_ADMIN_LISTEN", admin.to_string())
            .env("ZENDESK_WEBHOOK_SECRET", SECRET)
            .env("API_TOKENS", TOKEN)
            .envs(environment.iter().copied())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start ingest")?;
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, listens).await.context("ingest does not listen")?;
        if let Some(status) = child.try_wait()? {
            bail!("ingest ended by itself: {status}");
        }
        let pid = child.id().context("ingest ended at once")?;
        Ok(Service { child, pid, address })
    }

    /// SIGTERM; what it used until then.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Usage> {
        let usage = Usage::of(self.pid).context("ingest ended by itself")?;
        Command::new("kill").arg(self.pid.to_string()).status().await?;
        let status =
            timeout(PATIENCE, self.child.wait()).await.context("ingest does not end at SIGTERM")??;
        if !status.success() {
            bail!("ingest failed at its end: {status}");
        }
        Ok(usage)
    }
}
