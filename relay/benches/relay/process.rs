//! The relay as a process: started, watched, asked, ended.

use crate::world::World;
use anyhow::{Context as _, bail};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};

pub(crate) use testkit::report::{Usage, cpu_seconds};

/// Between two looks at memory and processor time.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of one run to its end.
const RUN: Duration = Duration::from_secs(3600);
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(30);
/// Between two questions for the relays' counts.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Without progress.
const STALL: Duration = Duration::from_secs(60);

/// A running relay; killed if it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    pid: u32,
    admin: SocketAddr,
    started: Instant,
}

impl Relay {
    /// Starts `relay ARGUMENTS` on the databases of a world.
    pub(crate) async fn start(world: &World, arguments: &[&str]) -> anyhow::Result<Relay> {
        Relay::start_with(world, arguments, &world.mongo.url, Stdio::inherit()).await
    }

    /// With another way to MongoDB, or without its log.
    pub(crate) async fn start_with(
        world: &World,
        arguments: &[&str],
        mongodb_url: &str,
        log: Stdio,
    ) -> anyhow::Result<Relay> {
        // A port that is free now: another process may take it in the moment until the relay does, which then ends with an error.
        let admin = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let started = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_relay"))
            .args(arguments)
            .env("DATABASE_URL", world.relay_url())
            .env("MONGODB_URL", mongodb_url)
            .env("MONGODB_DATABASE", &world.mongo.name)
            .env("RELAY_ADMIN_LISTEN", admin.to_string())
            .env_remove("RUST_LOG")
            .env_remove("DATABASE_DIRECT_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the relay")?;
        let pid = child.id().context("the relay ended at once")?;
        Ok(Relay { child, pid, admin, started })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, watching it; time from start to end, and what it used.
    pub(crate) async fn ended(mut self) -> anyhow::Result<(Duration, Usage)> {
        let mut usage = Usage::default();
        loop {
            usage = Usage::of(self.pid).unwrap_or(usage);
            if let Ok(status) = timeout(LOOK_EVERY, self.child.wait()).await {
                let status = status?;
                if !status.success() {
                    bail!("the relay failed: {status}");
                }
                return Ok((self.started.elapsed(), usage));
            }
            if self.started.elapsed() > RUN {
                bail!("the relay is not done after {} s", RUN.as_secs());
            }
        }
    }

    /// SIGTERM; what it used until then.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Usage> {
        self.must_run()?;
        let usage = Usage::of(self.pid).unwrap_or_default();
        let sent = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        if !sent.success() {
            bail!("cannot signal the relay");
        }
        let status =
            timeout(STOP, self.child.wait()).await.context("the relay does not end at SIGTERM")??;
        if !status.success() {
            bail!("the relay failed at its end: {status}");
        }
        Ok(usage)
    }

    /// Fails if it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the relay ended by itself: {status}"),
        }
    }

    /// What became of messages so far, by outcome: `relay_messages_total` of its metrics. Empty while it starts.
    pub(crate) async fn counts(&mut self) -> anyhow::Result<Counts> {
        self.must_run()?;
        let Ok(mut stream) = TcpStream::connect(self.admin).await else { return Ok(Counts::default()) };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        timeout(STOP, stream.read_to_string(&mut text)).await.context("the relay's metrics")??;
        Ok(Counts::read(&text))
    }
}

/// Asks the relays until `goal` is content with their sums; calls `look` each time. Fails when nothing moves any more.
pub(crate) async fn until(
    relays: &mut [Relay],
    goal: impl Fn(&Counts) -> bool,
    mut look: impl FnMut(&Counts),
) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let mut sum = Counts::default();
        for relay in relays.iter_mut() {
            for (outcome, count) in relay.counts().await?.0 {
                *sum.0.entry(outcome).or_default() += count;
            }
        }
        look(&sum);
        if goal(&sum) {
            return Ok(());
        }
        let now = sum.done() + sum.dead();
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STALL {
            bail!("nothing has ended for {} s: {:?}", STALL.as_secs(), sum.0);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Messages by outcome.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn read(metrics: &str) -> Counts {
        let mut counts = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("relay_messages_total{")) {
            let outcome = line.split_once("outcome=\"").and_then(|(_, rest)| rest.split_once('"'));
            let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok());
            if let (Some((outcome, _)), Some(count)) = (outcome, count) {
                *counts.entry(outcome.to_owned()).or_default() += count;
            }
        }
        Counts(counts)
    }

    /// Messages that ended well.
    pub(crate) fn done(&self) -> u64 {
        let not = ["dead", "retried", "parked", "given_back", "lease_lost"];
        self.0.iter().filter(|(outcome, _)| !not.contains(&outcome.as_str())).map(|(_, count)| count).sum()
    }

    /// Messages that ended badly.
    pub(crate) fn dead(&self) -> u64 {
        self.0.get("dead").copied().unwrap_or(0)
    }
}
