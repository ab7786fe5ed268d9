//! A relay whose own listener is attacked: it works on, and says how it is.

use crate::{
    console::get,
    feed::{Feed, Relay},
    world::World,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const PAUSE: Duration = Duration::from_secs(1);

/// Opens so many connections that send this and wait for the end of it, again and again.
fn attack(crowd: &mut JoinSet<()>, address: &str, connections: usize, bytes: &'static str) {
    for _ in 0..connections {
        let address = address.to_owned();
        crowd.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(&address).await {
                    let _ = stream.write_all(bytes.as_bytes()).await;
                    let mut buffer = vec![0; 4096];
                    let read = async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
                    let _ = timeout(10 * PAUSE, read).await;
                }
                sleep(PAUSE).await;
            }
        });
    }
}

#[tokio::test]
async fn floods_of_metrics_and_console_stop_neither_the_work_nor_the_watchers() {
    shared::process::raise_file_limit();
    let world = World::new().await;
    let mut feed = Feed::new(&world);
    let relay = Relay::start(&world, &[]);
    let address = relay.admin().await;
    feed.commit(20).await;
    feed.all_end_well().await;
    let mut crowd = JoinSet::new();
    for (connections, bytes) in [
        (1000, ""),
        (1000, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "),
        (30, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        (30, "GET /dead-letters HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        (30, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    ] {
        attack(&mut crowd, &address, connections, bytes);
    }
    relay.says("all connections are taken").await;
    for _ in 0..5 {
        feed.commit(100).await;
        for path in ["livez", "metrics", "readyz"] {
            assert_eq!(get(&format!("http://{address}/{path}")).await.status(), 200, "{path}");
        }
    }
    feed.all_end_well().await;
    crowd.shutdown().await;
    assert_eq!(relay.terminate().await, Some(0));
}
