//! Size, time and number: whatever exceeds them gets its own answer, and nobody else suffers.

use crate::harness::*;
use jiff::Timestamp;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use testkit::{Database, Wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Sends bytes as they are and reads until the other side closes or has sent `until`.
async fn raw(address: SocketAddr, bytes: &[u8], until: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_until(&mut stream, until).await
}

async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let read = async {
        while !String::from_utf8_lossy(&text).contains(until) {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => text.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8_lossy(&text).into_owned()
}

/// A request and its answer on a connection that stays open.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_until(stream, "ok\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_arrives_whether_its_length_is_told_or_not() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let large = "x".repeat((1 << 20) + 1);
    let signed = zendesk_verifier().sign(Timestamp::now(), large.as_bytes());
    let problem = service.post(ZENDESK, signed, large.clone()).await.is_problem(413, "payload-too-large");
    assert_eq!(problem["max_bytes"], 1 << 20);
    let mut chunked = b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..33 {
        chunked.extend_from_slice(format!("8000\r\n{}\r\n", "x".repeat(0x8000)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert!(raw(service.address, &chunked, "detail").await.starts_with("HTTP/1.1 413"));
    // The largest body that is allowed is read to its end.
    let mut body = mail("w1");
    body.insert_str(1, &" ".repeat((1 << 20) - body.len()));
    service.zendesk(&body).await.email_id("accepted");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_a_408() {
    let database = Database::new().await;
    let mut hasty = config(&database.url);
    hasty.limits.body_timeout = Duration::from_millis(100);
    let service = Service::start(hasty).await;
    let half = b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\": ";
    let answer = raw(service.address, half, "\0").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("/problems/body-too-slow"), "{answer}");
}

#[tokio::test]
async fn headers_that_do_not_arrive_in_time_end_the_connection() {
    let database = Database::new().await;
    let mut hasty = config(&database.url);
    hasty.limits.header_timeout = Duration::from_millis(100);
    let service = Service::start(hasty).await;
    let answer =
        raw(service.address, b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: x\r\nX-Slow: ", "\0").await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_is_kept_and_not_used_is_closed() {
    let database = Database::new().await;
    let mut hasty = config(&database.url);
    hasty.limits.header_timeout = Duration::from_millis(100);
    let service = Service::start(hasty).await;
    let answer = raw(service.address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "\0").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
}

#[tokio::test]
async fn for_a_connection_beyond_the_limit_the_one_without_an_answer_for_the_longest_is_closed() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    narrow.limits.connections = 3;
    let service = Service::start(narrow).await;
    let mut first = TcpStream::connect(service.address).await.unwrap();
    ask(&mut first).await;
    // Neither a head nor a body that is on its way counts as an answer.
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ").await.unwrap();
    let mut slower = TcpStream::connect(service.address).await.unwrap();
    let half = b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    slower.write_all(half).await.unwrap();
    ask(&mut first).await;
    let mut others = Vec::new();
    for quiet in [&mut slow, &mut slower] {
        let mut other = TcpStream::connect(service.address).await.unwrap();
        ask(&mut other).await;
        others.push(other);
        assert_eq!(read_until(quiet, "\0").await, "");
    }
    ask(&mut first).await;
    for other in &mut others {
        ask(other).await;
    }
}

/// A request that has been read whole is no quiet connection, however long Postgres takes.
#[tokio::test]
async fn whoever_is_being_served_is_never_closed_for_others() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    (narrow.limits.connections, narrow.limits.lock_wait) = (2, Duration::from_secs(3));
    let service = Service::start(narrow).await;
    let mut served = TcpStream::connect(service.address).await.unwrap();
    ask(&mut served).await;
    let mut idle = TcpStream::connect(service.address).await.unwrap();
    ask(&mut idle).await;
    let rival = Rival::holds(&database, "w1").await;
    let body = mail("w1");
    let signed = zendesk_verifier().sign(Timestamp::now(), body.as_bytes());
    let signed: String = signed.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let post = format!("POST {ZENDESK} HTTP/1.1\r\nHost: x\r\n{json}{signed}\r\n{body}");
    served.write_all(post.as_bytes()).await.unwrap();
    rival.is_waited_for_by(1).await;
    // The other one has been answered later, and makes room all the same.
    ask(&mut TcpStream::connect(service.address).await.unwrap()).await;
    assert_eq!(read_until(&mut idle, "\0").await, "");
    rival.rolls_back().await;
    assert!(read_until(&mut served, "accepted").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn more_clients_than_there_is_room_for_all_get_their_503_while_postgres_is_frozen() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let mut narrow = config(&wire.instead(&database.url));
    (narrow.limits.connections, narrow.limits.handler_timeout) = (4, Duration::from_millis(600));
    let service = Arc::new(Service::start(narrow).await);
    service.zendesk(&mail("w1")).await.email_id("accepted");
    wire.freeze();
    let mut clients = JoinSet::new();
    for number in 0..24 {
        let service = service.clone();
        clients.spawn(async move { service.zendesk(&mail(&format!("f{number}"))).await });
    }
    for answer in clients.join_all().await {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_the_answers_is_cut_off() {
    let database = Database::new().await;
    let mut hasty = config(&database.url);
    hasty.limits.header_timeout = Duration::from_millis(200);
    let service = Service::start(hasty).await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let asks =
        async { while stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asks).await.expect("the connection ends");
    assert_eq!(service.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_body_beyond_the_common_budget_ends_the_one_that_is_being_read_for_the_longest_with_a_503() {
    let database = Database::new().await;
    let mut small = config(&database.url);
    small.limits.body_bytes = 1000;
    small.limits.body_budget_bytes = 1000;
    let service = Service::start(small).await;
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    slow.write_all(b"POST /v1/webhooks/zendesk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n").await.unwrap();
    slow.write_all(&[b' '; 899]).await.unwrap();
    let body = "x".repeat(200);
    let unsigned = || service.post(ZENDESK, Vec::new(), body.clone());
    let ask = async {
        let held = "ingest_queue_bytes 899";
        eventually("the slow body to be held", || async {
            String::from_utf8_lossy(&get(service.admin_address, "/metrics").await.body).contains(held)
        })
        .await;
        unsigned().await.is_problem(401, "signature-missing");
    };
    let (answer, ()) = tokio::join!(read_until(&mut slow, "overloaded"), ask);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    unsigned().await.is_problem(401, "signature-missing");
    // One that is alone with what it needs has nobody to end.
    let alone = service.post(ZENDESK, Vec::new(), "x".repeat(1000)).await;
    alone.is_problem(401, "signature-missing");
}

/// None of them has as much as is needed.
#[tokio::test]
async fn many_small_slow_bodies_make_room_together_the_oldest_first() {
    let database = Database::new().await;
    let mut small = config(&database.url);
    small.limits.body_bytes = 1000;
    small.limits.body_budget_bytes = 1000;
    let service = Service::start(small).await;
    let post = format!(
        "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 101\r\n\r\n"
    );
    let mut slow = Vec::new();
    for number in 1..=10 {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all((post.clone() + &" ".repeat(100)).as_bytes()).await.unwrap();
        let held = format!("ingest_queue_bytes {}\n", number * 100);
        eventually("a slow body to be held", || async {
            String::from_utf8_lossy(&get(service.admin_address, "/metrics").await.body).contains(&held)
        })
        .await;
        slow.push(stream);
    }
    let good = service.post(ZENDESK, Vec::new(), "x".repeat(450)).await;
    good.is_problem(401, "signature-missing");
    let (oldest, others) = slow.split_at_mut(5);
    for stream in oldest {
        assert!(read_until(stream, "overloaded").await.starts_with("HTTP/1.1 503"));
    }
    for stream in others {
        stream.write_all(b" ").await.unwrap();
        assert!(read_until(stream, "signature-missing").await.starts_with("HTTP/1.1 401"));
    }
}

#[tokio::test]
async fn only_json_is_taken_with_or_without_a_charset() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = mail("w1");
    let send_as = |media_type: Option<&'static str>| {
        let mut request = hyper::Request::post(ZENDESK);
        for (name, value) in zendesk_verifier().sign(Timestamp::now(), body.as_bytes()) {
            request = request.header(name, value);
        }
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        send(service.address, request.body(body.clone().into_bytes().into()).unwrap())
    };
    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonp"),
        Some(""),
    ] {
        send_as(media_type).await.is_problem(415, "unsupported-media-type");
    }
    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
    for media_type in
        ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
    {
        assert_eq!(send_as(Some(media_type)).await.status, 200, "{media_type}");
    }
}

#[tokio::test]
async fn another_method_is_a_405_that_names_the_right_one_and_another_path_is_a_404() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    for (path, allowed) in [
        (ZENDESK, "POST"),
        ("/api/v1/zendesk/webhook", "POST"),
        ("/api/v1/resend/webhook", "POST"),
        (DEBT_UPDATES, "POST"),
        ("/v1/emails/1", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
    ] {
        for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "POST", "GET"] {
            if !allowed.contains(method) {
                let request =
                    hyper::Request::builder().method(method).uri(path).body(Default::default()).unwrap();
                let answer = send(service.address, request).await;
                assert_eq!(
                    (answer.status, answer.headers["allow"].to_str().unwrap()),
                    (405, allowed),
                    "{method} {path}"
                );
            }
        }
    }
    for path in ["/", "/metrics", "/v1", "/v1/webhooks/", "/v1/emails/1/x", "/%00", "/v1/debt-updates/"] {
        service.get(path).await.is_problem(404, "not-found");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body_and_a_query_is_ignored() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    for path in ["/livez", "/openapi.json?x=1"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(service.address, request.as_bytes(), "\0").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    let body = mail("w1");
    let signed = zendesk_verifier().sign(Timestamp::now(), body.as_bytes());
    service.post("/api/v1/zendesk/webhook?dry_run=1&x", signed, body).await.email_id("accepted");
}

#[tokio::test]
async fn requests_that_could_be_cut_in_two_ways_are_refused() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    for head in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip\r\n",
        " Content-Length: 5\r\n",
        "Content-Length : 5\r\n",
    ] {
        let request = format!("POST {ZENDESK} HTTP/1.1\r\nHost: x\r\n{head}\r\nhello");
        let answer = raw(service.address, request.as_bytes(), "\0").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
}

/// The framing that RFC 9112 (6.3) prefers counts, and the connection ends: what a proxy took for the rest of the body is never read
/// as a request.
#[tokio::test]
async fn of_two_framings_one_counts_and_nothing_after_it_is_a_request() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let body = mail("w1");
    let signed = zendesk_verifier().sign(Timestamp::now(), body.as_bytes());
    let signed: String = signed.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for framing in [
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let request = format!(
            "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{signed}{framing}\r\n{:x}\r\n{body}\r\n0\r\n\r\n\
             GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n",
            body.len()
        );
        let answer = raw(service.address, request.as_bytes(), "\0").await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{framing}: {answer}");
    }
    // Two lengths that agree are one.
    let agreed = format!(
        "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{signed}Content-Length: {0}\r\nContent-Length: {0}\r\n\r\n{body}",
        body.len()
    );
    assert!(raw(service.address, agreed.as_bytes(), "\0").await.contains("duplicate"));
    assert_eq!(rows(&database.client().await).await, [1, 1, 1]);
}

#[tokio::test]
async fn whatever_comes_is_answered_with_a_4xx_or_a_closed_connection_and_writes_nothing() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let json = "Content-Type: application/json\r\nConnection: close\r\n";
    let headers: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
    for (what, request) in [
        (
            "bare line feeds",
            format!("POST {ZENDESK} HTTP/1.1\nHost: x\nConnection: close\nContent-Length: 2\n\n{{}}"),
        ),
        ("10,000 headers", format!("POST {ZENDESK} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")),
        ("one long header", format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "y".repeat(70_000)),
        ),
        (
            "20 MB",
            format!(
                "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 20000000\r\n\r\n{}",
                "x".repeat(3 << 20)
            ),
        ),
        (
            "chunks of no size",
            format!("POST {ZENDESK} HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ),
        ("no HTTP", "\u{16}\u{3}\u{1} hello\r\n\r\n".into()),
    ] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await; // it may be cut off in the middle
        let answer = read_until(&mut stream, "\0").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), usize::from(!answer.is_empty()), "{what}: {answer}");
    }
    assert_eq!(rows(&database.client().await).await, [0, 0, 0]);
}
