//! A relay whose own listener is attacked: it works on, and says how it is.

use crate::{
    console::get,
    feed::{Feed, Relay},
    outages::until,
    world::World,
};
use testkit::{
    Wire,
    attack::{Attack, Crowd, Then},
};
use tokio::task::JoinSet;

#[tokio::test]
async fn floods_of_metrics_and_console_stop_neither_the_work_nor_the_watchers() {
    shared::process::raise_file_limit();
    let world = World::new().await;
    let mut feed = Feed::new(&world);
    let relay = Relay::start(&world, &[]);
    let address = relay.admin().await;
    feed.commit(20).await;
    feed.all_end_well().await;
    let attack = |connections, bytes: &str, then| Attack { name: "", connections, bytes: bytes.into(), then };
    let page = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let attacks = vec![
        attack(1000, "", Then::Wait),
        attack(1000, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", Then::Wait),
        attack(30, &page("/"), Then::ComeAgain),
        attack(30, &page("/dead-letters"), Then::ComeAgain),
        attack(30, &page("/metrics"), Then::ComeAgain),
    ];
    let crowd = Crowd::begin(attacks, address.parse().unwrap());
    relay.says("all connections are taken").await;
    let metrics = get(&format!("http://{address}/metrics")).await.text().await.unwrap();
    let closed = "relay_closed_connections_total{listener=\"admin\"} ";
    let closed = metrics.lines().find_map(|line| line.strip_prefix(closed)).unwrap();
    assert_ne!(closed, "0");
    for _ in 0..5 {
        feed.commit(100).await;
        for path in ["livez", "metrics", "readyz"] {
            assert_eq!(get(&format!("http://{address}/{path}")).await.status(), 200, "{path}");
        }
    }
    feed.all_end_well().await;
    drop(crowd);
    assert_eq!(relay.terminate().await, Some(0));
}

/// A page that is being read keeps its place on the listener, so there may not be too many of them.
#[tokio::test]
async fn pages_that_wait_for_a_frozen_postgres_leave_places_for_the_watchers() {
    let world = World::new().await;
    let wire = Wire::before(&world.database.url).await;
    let relay = Relay::start(&world, &[("DATABASE_URL", &wire.instead(&world.relay_url()))]);
    let address = relay.admin().await;
    until(|| async { get(&format!("http://{address}/readyz")).await.status() == 200 }).await;
    wire.freeze();
    let mut pages = JoinSet::new();
    let client = reqwest::Client::new(); // one for all: making it takes longer than a request
    for _ in 0..100 {
        let page = client.get(format!("http://{address}/"));
        pages.spawn(async move { page.send().await.unwrap().text().await.unwrap() });
    }
    for _ in 0..36 {
        let page = pages.join_next().await.unwrap().unwrap();
        assert!(page.contains("too many pages"), "{page}");
    }
    assert_eq!(get(&format!("http://{address}/livez")).await.status(), 200);
    assert!(pages.try_join_next().is_none(), "the others still wait");
}
