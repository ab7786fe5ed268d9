//! Thousands of hostile connections at once, and a good client beside them: it gets its 200 each time, the program's memory stays
//! within a bound, its files come back, and nothing of an attacker is stored.

use crate::{harness::*, program::Running};
use testkit::{
    Database,
    attack::{Attack, Crowd, Then, attacks},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Requests of the good client beside an attack.
const GOOD: usize = 30;

/// What 4,096 connections may come to, in kB: twice the budget of all bodies (a body that grows is copied), 64 KiB for each
/// connection's head, and 64 MiB for the program itself.
const MOST_MEMORY: usize = (2 * 32 + 4096 * 64 / 1024 + 64) << 10;

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
            // Larger than most slow bodies: several have to make room for it.
            let body = mail(&format!("good-{}", self.sent)) + &" ".repeat(20_000);
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
    for attack in attacks(ZENDESK) {
        let (name, full) = (attack.name, attack.connections.min(4096) * 9 / 10);
        let stays = attack.then != Then::ComeAgain;
        let crowd = Crowd::begin(vec![attack], target.running.address);
        if stays {
            eventually(name, || async { target.running.measure("files") >= full }).await;
        }
        target.is_served(name).await;
        drop(crowd);
    }
    target.is_as_before(files).await;
}

#[tokio::test]
async fn beside_all_attacks_at_once_the_good_client_is_served_and_the_memory_is_bounded() {
    let mut target = Target::new().await;
    target.is_served("nobody").await;
    let files = target.running.measure("files") + 16;
    // As many together as one of them alone has.
    let third = |attack: Attack| Attack { connections: attack.connections.div_ceil(3), ..attack };
    let crowd = Crowd::begin(attacks(ZENDESK).into_iter().map(third).collect(), target.running.address);
    eventually("a full house", || async { target.running.measure("files") >= 4096 }).await;
    for _ in 0..3 {
        target.is_served("all of them").await;
    }
    drop(crowd);
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
    let attack = |connections, bytes: &str, then| Attack { name: "", connections, bytes: bytes.into(), then };
    let slow = attack(2000, "GET /metrics HTTP/1.1\r\nX: ", Then::Wait);
    let quick = attack(50, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Then::ComeAgain);
    let crowd = Crowd::begin(vec![slow, quick], target.running.admin);
    eventually("a full listener", || async { target.running.measure("files") >= 512 }).await;
    for _ in 0..10 {
        for path in ["/metrics", "/livez", "/readyz"] {
            assert_eq!(get(target.running.admin, path).await.status, 200);
        }
    }
    target.is_served("a flood of the admin listener").await;
    let page = String::from_utf8(get(target.running.admin, "/metrics").await.body.to_vec()).unwrap();
    let closed = |listener: &str| {
        let name = format!("ingest_closed_connections_total{{listener=\"{listener}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
    };
    assert!(closed("admin") > 0 && closed("public") == 0, "{page}");
    drop(crowd);
    target.is_as_before(files).await;
}
