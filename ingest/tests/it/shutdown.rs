//! Nothing in flight is lost: not by a client that leaves, not by a service that ends.

use crate::harness::*;
use jiff::Timestamp;
use std::sync::Arc;
use testkit::Database;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// The bytes of a signed delivery of the mail w1.
fn delivery() -> String {
    let body = mail("w1");
    let headers: String = zendesk_verifier()
        .sign(Timestamp::now(), body.as_bytes())
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    format!(
        "POST {ZENDESK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_the_commit() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let client = database.client().await;
    let rival = Rival::holds(&database, "w1").await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(delivery().as_bytes()).await.unwrap();
    rival.is_waited_for_by(1).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    rival.rolls_back().await;
    eventually("the mail", || async { rows(&client).await == [1, 1, 1] }).await;
    assert_whole(&client).await;
}

#[tokio::test]
async fn a_shutdown_finishes_the_request_in_flight_and_takes_no_new_ones() {
    let database = Database::new().await;
    let mut patient = config(&database.url);
    patient.lock_wait = std::time::Duration::from_secs(3);
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
    patient.lock_wait = std::time::Duration::from_secs(3);
    let service = Service::start(patient).await;
    let client = database.client().await;
    let rival = Rival::holds(&database, "w1").await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(delivery().as_bytes()).await.unwrap();
    rival.is_waited_for_by(1).await;
    drop(stream);
    service.shutdown.cancel();
    eventually("a closed door", || async { TcpStream::connect(service.address).await.is_err() }).await;
    rival.rolls_back().await;
    eventually("the end", || async { service.done.is_finished() }).await;
    assert_eq!(rows(&client).await, [1, 1, 1]);
}
