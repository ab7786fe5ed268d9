//! Connections that send requests and read answers, with as little of their own as possible: they share the machine with what they
//! measure.

use anyhow::{Context as _, bail};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

/// Between two bytes of a slow connection: the whole takes longer than the run.
const SLOWLY: Duration = Duration::from_millis(500);
/// Connections of an even load.
const EVEN_CONNECTIONS: usize = 8;

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) milliseconds: Vec<f64>,
    pub(crate) all_ok: bool,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn to(address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends it; whether the answer is a 200, and after how many milliseconds.
    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<(bool, f64)> {
        let sent = Instant::now();
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection ended");
            }
            if let Some(ok) = whole_answer(&self.buffer) {
                return Ok((ok, sent.elapsed().as_secs_f64() * 1000.0));
            }
        }
    }
}

/// Whether it is a 200, once it is there whole.
fn whole_answer(bytes: &[u8]) -> Option<bool> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let length: usize = length.parse().ok()?;
    (bytes.len() >= end + 4 + length).then(|| head.starts_with("HTTP/1.1 200"))
}

/// Each connection sends its share, one after the other.
pub(crate) async fn send_all(
    address: SocketAddr,
    connections: usize,
    requests: Vec<Vec<u8>>,
) -> anyhow::Result<Outcome> {
    let mut shares: Vec<Vec<Vec<u8>>> = (0..connections).map(|_| Vec::new()).collect();
    for (index, request) in requests.into_iter().enumerate() {
        shares.get_mut(index % connections).context("a share")?.push(request);
    }
    let mut open = Vec::new();
    for share in shares {
        open.push((Connection::to(address).await?, share));
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (mut connection, share) in open {
        tasks.spawn(async move {
            let (mut all_ok, mut times) = (true, Vec::with_capacity(share.len()));
            for request in share {
                let (ok, milliseconds) = connection.ask(&request).await?;
                all_ok &= ok;
                times.push(milliseconds);
            }
            anyhow::Ok((all_ok, times))
        });
    }
    let mut outcome = Outcome { all_ok: true, ..Outcome::default() };
    while let Some(done) = tasks.join_next().await {
        let (all_ok, times) = done??;
        outcome.all_ok &= all_ok;
        outcome.milliseconds.extend(times);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok(outcome)
}

/// At an even rate; how long each took.
pub(crate) async fn send_evenly(
    address: SocketAddr,
    rate: u32,
    requests: Vec<Vec<u8>>,
) -> anyhow::Result<Vec<f64>> {
    let mut connections = Vec::new();
    for _ in 0..EVEN_CONNECTIONS {
        connections.push(std::sync::Arc::new(tokio::sync::Mutex::new(Connection::to(address).await?)));
    }
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    for (index, request) in requests.into_iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let due = Duration::from_secs_f64(index as f64 / f64::from(rate));
        sleep(due.saturating_sub(started.elapsed())).await;
        let connection = connections.get(index % EVEN_CONNECTIONS).context("a connection")?.clone();
        tasks.spawn(async move { connection.lock().await.ask(&request).await });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (ok, milliseconds) = done??;
        if !ok {
            bail!("an answer was not 200");
        }
        times.push(milliseconds);
    }
    Ok(times)
}

/// Connections that send a body byte after byte, until they are dropped; whoever is cut off comes again.
pub(crate) async fn slow_crowd(address: SocketAddr, count: usize) -> anyhow::Result<JoinSet<()>> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let mut connection = Connection::to(address).await?;
        crowd.spawn(async move {
            loop {
                let head = b"POST /v1/webhooks/zendesk HTTP/1.1\r\nhost: ingest\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
                let mut sent = connection.stream.write_all(head).await;
                while sent.is_ok() {
                    sleep(SLOWLY).await;
                    sent = connection.stream.write_all(b" ").await;
                }
                match Connection::to(address).await {
                    Ok(again) => connection = again,
                    Err(_) => return,
                }
            }
        });
    }
    Ok(crowd)
}
