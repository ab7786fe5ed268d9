//! Hostile HTTP clients by the thousand, against a program of the test's own on this machine: slow, silent, greedy, or in the wrong
//! protocol. They have one thread, so that they leave the machine to the program and its good client; what costs the program work is
//! bounded in rate for the same reason.

use std::{net::SocketAddr, thread::JoinHandle, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Whoever has what it wants comes again after this; whoever is cut off, after twice as long. Of 5,000 slow connections at a service that
/// has room for 4,096, some 450 come a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two that come for the first time.
const APART: Duration = Duration::from_micros(200);

/// What a hostile connection does once it has sent its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It waits until it is cut off.
    Wait,
    /// It waits and reads no answer.
    ReadNothing,
    /// It takes the answers for a second and comes again.
    ComeAgain,
}

/// What a hostile connection sends, and how many there are of it.
#[derive(Debug, Clone)]
pub struct Attack {
    /// For reports.
    pub name: &'static str,
    /// All the time.
    pub connections: usize,
    /// As they are.
    pub bytes: Vec<u8>,
    /// What follows.
    pub then: Then,
}

/// All kinds, against a service that takes posts of 1 MiB to this path, and has an answer of some length at `/openapi.json`.
#[must_use]
pub fn attacks(path: &str) -> Vec<Attack> {
    let post = |length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let get = |path: &str, count: usize| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(count);
    let large = |length: usize, sent: usize| (post(length) + &"x".repeat(sent)).into_bytes();
    let wait = |name, connections, bytes| Attack { name, connections, bytes, then: Then::Wait };
    let again = |name, connections, bytes| Attack { name, connections, bytes, then: Then::ComeAgain };
    let fat_head = [b"GET /livez HTTP/1.1\r\nX: ".as_slice(), &[b'y'; 60_000]].concat();
    let unread = wait("answers that nobody reads", 100, get("/openapi.json", 100).into_bytes());
    vec![
        wait("nothing is sent", 5000, Vec::new()),
        wait("slow heads", 5000, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ".to_vec()),
        wait("slow and large heads", 1000, fat_head),
        wait("slow bodies", 5000, large(1000, 1)),
        wait("slow bodies of 10 kB", 4000, large(20_000, 10_000)),
        wait("slow and large bodies", 100, large(1 << 20, (1 << 20) - 1)),
        Attack { then: Then::ReadNothing, ..unread },
        again("connections, opened and left", 500, Vec::new()),
        again("pipelines", 10, get("/livez", 300).into_bytes()),
        again("large bodies, unsigned", 10, large(1 << 20, 1 << 20)),
        again("bodies over the limit", 10, large(2 << 20, 2 << 20)),
        again("heads over the limit", 10, get(&"y".repeat(100_000), 1).into_bytes()),
        again("HTTP/2, rapidly reset", 100, rapid_reset()),
    ]
}

/// The preface of HTTP/2, and 500 streams that are opened and reset.
fn rapid_reset() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..1000_u32).step_by(2) {
        bytes.extend_from_slice(&[0, 0, 1, 1, 5]); // HEADERS
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[0x82, 0, 0, 4, 3, 0]); // one header; RST_STREAM
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 8]);
    }
    bytes
}

/// Attackers at work; they go with this value.
#[derive(Debug)]
pub struct Crowd {
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Lets them begin.
    #[must_use]
    pub fn begin(attacks: Vec<Attack>, address: SocketAddr) -> Crowd {
        assert!(address.ip().is_loopback(), "only against this machine");
        let end = CancellationToken::new();
        let told = end.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for attackers").block_on(async {
                let begin = async {
                    for attack in attacks {
                        for _ in 0..attack.connections {
                            tokio::spawn(again_and_again(attack.clone(), address));
                            sleep(APART).await;
                        }
                    }
                    std::future::pending::<()>().await;
                };
                told.run_until_cancelled(begin).await;
            });
        });
        Crowd { end, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // their failures are theirs
        }
    }
}

async fn again_and_again(attack: Attack, address: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let sends_and_reads = async {
                let mut buffer = vec![0; 1024];
                if stream.write_all(&attack.bytes).await.is_ok() {
                    if attack.then == Then::ReadNothing {
                        sleep(20 * PAUSE).await;
                    }
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                }
            };
            match attack.then {
                Then::Wait | Then::ReadNothing => sends_and_reads.await,
                Then::ComeAgain => drop(timeout(PAUSE, sends_and_reads).await),
            }
        }
        sleep(if attack.then == Then::ComeAgain { PAUSE } else { 2 * PAUSE }).await;
    }
}
