//! Thousands of hostile connections at once, and a good client beside them: it gets its 200 each time, the program's memory stays
//! within a bound, its files come back, and nothing of an attacker is stored.

use crate::{harness::*, program::Running};
use std::{net::SocketAddr, time::Duration};
use testkit::Database;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Whoever is cut off comes again after this: attackers and program share a machine.
const PAUSE: Duration = Duration::from_secs(1);
/// Requests of the good client beside an attack.
const GOOD: usize = 30;

/// What 4,096 connections may come to, in kB: twice the budget of all bodies (a body that grows is copied), 64 KiB for each
/// connection's head, and 64 MiB for the program itself.
const MOST_MEMORY: usize = (2 * 32 + 4096 * 64 / 1024 + 64) << 10;

/// What a hostile connection does once it has sent its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits until it is cut off.
    Wait,
    /// It waits and reads no answer.
    ReadNothing,
    /// It takes the answers and comes again.
    ComeAgain,
}

/// What a hostile connection sends, and how many there are of it.
#[derive(Clone)]
struct Attack {
    name: &'static str,
    connections: usize,
    bytes: Vec<u8>,
    then: Then,
}

fn attacks() -> Vec<Attack> {
    let post = |length: usize| {
        format!(
            "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let silent = |name, connections, bytes| Attack { name, connections, bytes, then: Then::Wait };
    let read = |name, connections, bytes| Attack { name, connections, bytes, then: Then::ComeAgain };
    let get = |path: &str, count: usize| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(count);
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in 0..500_u32 {
        // HEADERS of a stream, and at once its end.
        preface.extend_from_slice(&[0, 0, 1, 1, 5]);
        preface.extend_from_slice(&(2 * stream + 1).to_be_bytes());
        preface.push(0x82);
        preface.extend_from_slice(&[0, 0, 4, 3, 0]);
        preface.extend_from_slice(&(2 * stream + 1).to_be_bytes());
        preface.extend_from_slice(&[0, 0, 0, 8]);
    }
    vec![
        silent("nothing is sent", 5000, Vec::new()),
        silent("slow heads", 5000, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ".to_vec()),
        silent(
            "slow and large heads",
            1000,
            [b"GET /livez HTTP/1.1\r\nX: ".as_slice(), &[b'y'; 60_000]].concat(),
        ),
        silent("slow bodies", 5000, (post(1000) + "{").into_bytes()),
        silent("slow and large bodies", 100, (post(1 << 20) + &"x".repeat((1 << 20) - 1)).into_bytes()),
        Attack {
            then: Then::ReadNothing,
            ..silent("answers that nobody reads", 100, get("/openapi.json", 100).into_bytes())
        },
        read("pipelines", 10, get("/livez", 300).into_bytes()),
        read("large bodies, unsigned", 20, (post(1 << 20) + &"x".repeat(1 << 20)).into_bytes()),
        read("bodies over the limit", 20, (post(2 << 20) + &"x".repeat(2 << 20)).into_bytes()),
        read("heads over the limit", 20, get(&"y".repeat(100_000), 1).into_bytes()),
        read("HTTP/2, rapidly reset", 100, preface),
    ]
}

/// Opens its connections again and again, until it is dropped.
fn begin(attack: &Attack, address: SocketAddr, crowd: &mut JoinSet<()>) {
    for _ in 0..attack.connections {
        let Attack { bytes, then, .. } = attack.clone();
        crowd.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let mut buffer = vec![0; 4096];
                    let _ = stream.write_all(&bytes).await; // it may be cut off in the middle
                    let read = async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
                    match then {
                        Then::Wait => read.await,
                        Then::ReadNothing => sleep(PATIENCE).await,
                        Then::ComeAgain => drop(timeout(PAUSE, read).await),
                    }
                }
                sleep(PAUSE).await;
            }
        });
    }
}

struct Target {
    database: Database,
    running: Running,
    sent: usize,
}

impl Target {
    async fn new() -> Target {
        shared::process::raise_file_limit();
        let database = Database::new().await;
        let settings = [
            ("DATABASE_URL", database.url.as_str()),
            ("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET),
            // A machine that is busy with attackers and their target takes its time: this is about answers, not about their times.
            ("INGEST_HANDLER_TIMEOUT_MS", "15000"),
            ("RUST_LOG", "warn,ingest::server=info"),
        ];
        let running = Running::start_with(&[], &settings);
        let target = Target { database, running, sent: 0 };
        eventually("a connection to Postgres", || async {
            get(target.running.admin, "/readyz").await.status == 200
        })
        .await;
        target
    }

    /// Each request on a connection of its own.
    async fn is_served(&mut self, beside: &str) {
        for _ in 0..GOOD {
            self.sent += 1;
            let body = mail(&format!("good-{}", self.sent));
            let answer = timeout(PATIENCE, self.running.zendesk(&body)).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer beside: {beside}"));
            assert_eq!(answer.status, 200, "beside: {beside}: {answer:?}");
        }
        let metrics = get(self.running.admin, "/metrics").await;
        assert_eq!(metrics.status, 200, "beside: {beside}");
    }

    /// Memory, files and rows, after the attackers have gone.
    async fn is_as_before(&mut self, files: usize) {
        eventually("the files to be closed", || async { self.running.measure("files") <= files }).await;
        let peak = self.running.measure("VmHWM:");
        assert!(peak < MOST_MEMORY, "{peak} kB at most, and not below {MOST_MEMORY} kB");
        let stored = rows(&self.database.client().await).await;
        assert_eq!(stored, [self.sent as i64; 3], "what the good client has sent, and nothing else");
        assert_eq!(self.running.terminate().await, 0);
    }
}

#[tokio::test]
async fn beside_each_attack_the_good_client_is_served() {
    let mut target = Target::new().await;
    target.is_served("nobody").await;
    // The pool's connections come as they are needed.
    let files = target.running.measure("files") + 16;
    for attack in attacks() {
        let mut crowd = JoinSet::new();
        begin(&attack, target.running.address, &mut crowd);
        let full = attack.connections.min(4096) * 9 / 10;
        if attack.then != Then::ComeAgain {
            eventually(attack.name, || async { target.running.measure("files") >= full }).await;
        }
        target.is_served(attack.name).await;
        crowd.shutdown().await;
    }
    target.is_as_before(files).await;
}

#[tokio::test]
async fn beside_all_attacks_at_once_the_good_client_is_served_and_the_memory_is_bounded() {
    let mut target = Target::new().await;
    target.is_served("nobody").await;
    let files = target.running.measure("files") + 16;
    let mut crowd = JoinSet::new();
    for attack in attacks() {
        // As many together as one of them alone has.
        let connections = attack.connections.div_ceil(3);
        begin(&Attack { connections, ..attack }, target.running.address, &mut crowd);
    }
    eventually("a full house", || async { target.running.measure("files") >= 4096 }).await;
    for _ in 0..3 {
        target.is_served("all of them").await;
    }
    crowd.shutdown().await;
    target.is_as_before(files).await;
}

/// A proxy that speaks it to us must see at once that we do not.
#[tokio::test]
async fn http_2_is_refused_by_closing_the_connection() {
    let target = Target::new().await;
    for preface in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    ] {
        for address in [target.running.address, target.running.admin] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(preface).await.unwrap();
            let mut answer = Vec::new();
            let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            let _ = end.expect("the end of the connection"); // it may be a reset
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505"),
                "{answer}"
            );
        }
    }
}

/// The admin listener has 512 places.
#[tokio::test]
async fn a_flood_of_the_admin_listener_keeps_nobody_from_the_metrics_and_no_sender_out() {
    let mut target = Target::new().await;
    let files = target.running.measure("files") + 16;
    let mut crowd = JoinSet::new();
    let slow = Attack {
        name: "",
        connections: 2000,
        bytes: b"GET /metrics HTTP/1.1\r\nX: ".to_vec(),
        then: Then::Wait,
    };
    let quick = Attack {
        connections: 50,
        bytes: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        then: Then::ComeAgain,
        ..slow.clone()
    };
    for attack in [slow, quick] {
        begin(&attack, target.running.admin, &mut crowd);
    }
    for _ in 0..10 {
        for path in ["/metrics", "/livez", "/readyz"] {
            assert_eq!(get(target.running.admin, path).await.status, 200);
        }
    }
    target.is_served("a flood of the admin listener").await;
    crowd.shutdown().await;
    target.is_as_before(files).await;
}
