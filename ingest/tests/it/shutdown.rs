//! Nothing in flight is lost: not by a client that leaves, not by a service that ends.

use crate::harness::*;
use jiff::Timestamp;
use std::sync::Arc;
use testkit::Database;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The bytes of a signed delivery.
fn delivery(webhook_id: &str) -> String {
    let body = mail(webhook_id);
    let signed = zendesk_verifier().sign(Timestamp::now(), body.as_bytes());
    let headers: String = signed.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = "Host: x\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("POST {ZENDESK} HTTP/1.1\r\n{head}{}\r\n{headers}\r\n{body}", body.len())
}

/// The one connection to Postgres waits for a rival, a second delivery waits for the connection, its client hangs up: nothing of
/// it has reached Postgres by then, so that only ingest itself can carry it on.
#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_the_commit() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    narrow.limits.pool_size = 1;
    narrow.limits.pool_wait = PATIENCE;
    narrow.limits.lock_wait = PATIENCE;
    narrow.limits.handler_timeout = PATIENCE;
    // Two mails fill the budget: a refused third body shows that both are in.
    narrow.limits.body_budget_bytes = mail("w1").len() + mail("w2").len() + 10;
    let service = Arc::new(Service::start(narrow).await);
    let client = database.client().await;
    let rival = Rival::holds(&database, "w1").await;
    let mut first = TcpStream::connect(service.address).await.unwrap();
    first.write_all(delivery("w1").as_bytes()).await.unwrap();
    rival.is_waited_for_by(1).await;
    let mut second = TcpStream::connect(service.address).await.unwrap();
    second.write_all(delivery("w2").as_bytes()).await.unwrap();
    eventually("the second body to be held", || async {
        service.post(ZENDESK, Vec::new(), "x".repeat(20)).await.status == 503
    })
    .await;
    for stream in [first, second] {
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    // hyper has dropped a handler when its connection is gone; the next probe comes after that.
    service.post(ZENDESK, Vec::new(), "x".repeat(20)).await.is_problem(503, "overloaded");
    rival.rolls_back().await;
    eventually("both mails", || async { rows(&client).await == [2, 2, 2] }).await;
    assert_whole(&client).await;
}

#[tokio::test]
async fn a_shutdown_finishes_the_request_in_flight_and_takes_no_new_ones() {
    let database = Database::new().await;
    let mut patient = config(&database.url);
    patient.limits.lock_wait = std::time::Duration::from_secs(3);
    let service = Arc::new(Service::start(patient).await);
    let rival = Rival::holds(&database, "w1").await;
    let asking = {
        let service = service.clone();
        tokio::spawn(async move { service.zendesk(&mail("w1")).await })
    };
    rival.is_waited_for_by(1).await;
    service.shutdown.cancel();
    eventually("a closed door", || async { TcpStream::connect(service.address).await.is_err() }).await;
    // The admin listener stays to the end, to say that nobody should come.
    let unready = get(service.admin_address, "/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(String::from_utf8_lossy(&unready.body).contains("shutting down"));
    assert!(!service.done.is_finished());
    rival.rolls_back().await;
    asking.await.unwrap().email_id("accepted");
    eventually("the end", || async { service.done.is_finished() }).await;
    assert!(TcpStream::connect(service.admin_address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_waits_for_a_commit_whose_client_has_left() {
    let database = Database::new().await;
    let mut patient = config(&database.url);
    patient.limits.lock_wait = std::time::Duration::from_secs(3);
    let service = Service::start(patient).await;
    let client = database.client().await;
    let rival = Rival::holds(&database, "w1").await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(delivery("w1").as_bytes()).await.unwrap();
    rival.is_waited_for_by(1).await;
    drop(stream);
    service.shutdown.cancel();
    eventually("a closed door", || async { TcpStream::connect(service.address).await.is_err() }).await;
    rival.rolls_back().await;
    eventually("the end", || async { service.done.is_finished() }).await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
}

#[tokio::test]
async fn a_client_that_leaves_at_any_point_leaves_a_whole_mail_or_none() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let request = delivery("w1").into_bytes();
    let all = request.len();
    // Within the request line, the headers, at their end, within the body, before its last byte.
    let body = all - mail("w1").len();
    for sent in [3, 60, body - 1, body, body + 1, all - 1] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(&request[..sent]).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    service.zendesk(&mail("w2")).await.email_id("accepted");
    let client = database.client().await;
    assert_eq!(rows(&client).await, [1, 1, 1], "what was not sent whole is not stored");
    // At once after the last byte, and with a part of the answer unread.
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    drop(stream);
    eventually("the mail of a client that has left", || async { rows(&client).await[0] >= 1 }).await;
    let answer = service.zendesk(&mail("w1")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(rows(&client).await, [2, 2, 2]);
    assert_whole(&client).await;
}

/// One after the other: the later ones come when a server that closes its idle connections at once would have done so.
#[tokio::test]
async fn requests_on_open_connections_are_still_answered_after_the_shutdown_began() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(delivery(&format!("first {number}")).as_bytes()).await.unwrap();
        let answer = answer_on(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
        streams.push(stream);
    }
    service.shutdown.cancel();
    eventually("a closed door", || async { TcpStream::connect(service.address).await.is_err() }).await;
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(delivery(&format!("second {number}")).as_bytes()).await.unwrap();
        let answer = answer_on(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    }
    eventually("the end", || async { service.done.is_finished() }).await;
    assert_eq!(rows(&database.client().await).await, [40, 40, 40]);
}

/// The next answer, head and body.
async fn answer_on(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    while !answer.contains("email_id") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed after {answer}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    answer
}
