//! Passwords: whatever goes wrong, no text holds one.

use crate::{feed::Relay, world::World};
use testkit::{Authority, PostgresServer, ReplicaSet, url_as};

const CANARY: &str = "kanarienvogel";

#[tokio::test]
async fn no_failure_at_any_level_of_the_log_prints_a_password() {
    let (world, authority) = (World::new().await, Authority::new());
    let (postgres, mongo) = (PostgresServer::with_tls(&authority), ReplicaSet::protected(&authority));
    let (postgres, mongo) = tokio::join!(postgres, mongo);
    let refused = url_as("relay", &postgres.url).replace(":testkit@", &format!(":{CANARY}@"));
    let postgres = [
        refused,
        format!("postgres://relay:{CANARY}@127.0.0.1:9/none"),
        format!("postgres://relay:{CANARY}@no.such.host.invalid/none"),
        format!("postgres://relay:{CANARY}@host:port/none"),
        format!("postgres://relay:{CANARY}@host/none?sslmode=maybe"),
        format!("host=h password={CANARY} port=many"),
        format!("mysql://relay:{CANARY}@host/none"),
        CANARY.to_owned(),
    ];
    let mongodb = [
        mongo.url_as("relay", CANARY, "admin"),
        format!("mongodb://relay:{CANARY}@127.0.0.1:9/"),
        format!("mongodb://relay:{CANARY}@no.such.host.invalid/"),
        format!("mongodb://relay:{CANARY}@host:port/"),
        format!("mongodb://relay:{CANARY}@host/?replicaSet"),
        format!("mongodb://{CANARY}@relay:{CANARY}@host/"),
        format!("mysql://relay:{CANARY}@host/"),
    ];
    let commands: [&[&str]; 5] =
        [&["check-config"], &["migrate"], &["status"], &["run", "--once"], &["explain", "1"]];
    let mut asked = tokio::task::JoinSet::new();
    for arguments in commands {
        for url in &postgres {
            let mut command = world.program(&world.mongo.url, arguments);
            command.env("DATABASE_URL", url).env("RUST_LOG", "trace");
            asked.spawn(async move { (format!("{arguments:?}"), command.output().await.unwrap()) });
        }
    }
    for url in &mongodb {
        for arguments in [&["check-config"][..], &["run", "--once"]] {
            let mut command = world.program(url, arguments);
            command.env("RUST_LOG", "trace");
            asked.spawn(async move { (format!("{arguments:?}"), command.output().await.unwrap()) });
        }
    }
    let mut failures = 0;
    while let Some(answer) = asked.join_next().await {
        let (arguments, output) = answer.unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains(CANARY), "{arguments}: {said}");
        failures += usize::from(!output.status.success());
    }
    assert!(failures > 40, "most of them fail: {failures}");
}

#[tokio::test]
async fn what_stands_in_a_variable_or_a_file_is_not_in_the_arguments_of_the_process() {
    let world = World::new().await;
    let file = std::env::temp_dir().join(format!("{CANARY}_{}", std::process::id()));
    let url = world.relay_url().replace("testkit:testkit", &format!("testkit:{CANARY}"));
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let name = file.display().to_string();
    let relay = Relay::start(&world, &[("DATABASE_URL", ""), ("DATABASE_URL_FILE", &name)]);
    relay.admin().await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", relay.pid())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    assert!(arguments.ends_with("relay\0run\0"), "{arguments:?}");
    assert_eq!(relay.terminate().await, Some(0));
    std::fs::remove_file(file).unwrap();
}
