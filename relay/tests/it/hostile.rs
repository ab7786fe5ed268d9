//! A relay whose own listener is attacked: it works on, and says how it is.

use crate::{
    console::get,
    feed::{Feed, Relay},
    world::World,
};
use testkit::attack::{Attack, Crowd, Then};

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
