//! TLS to Postgres and to MongoDB, with an authority that nobody but the test knows.

use crate::{
    feed::Relay,
    outages::until,
    world::{Update, World, turmhaus},
};
use testkit::{Authority, MongoDatabase, PostgresServer, ReplicaSet, url_as};

/// What `relay run --once` says when it cannot work with these servers.
async fn refusal(world: &World, database_url: &str, mongodb_url: &str) -> String {
    let mut command = world.program(mongodb_url, &["run", "--once"]);
    let output = command.env("DATABASE_URL", database_url).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn every_connection_to_postgres_is_encrypted_and_none_goes_to_a_server_that_cannot_prove_its_name() {
    let (world, authority) = (World::new().await, Authority::new());
    let server = PostgresServer::with_tls(&authority).await; // refuses what is not encrypted
    let url = url_as("relay", &server.url);
    let relay = Relay::start(&world, &[("DATABASE_URL", &url)]);
    let sql = shared::postgres::connect(&server.url, "test").await.unwrap();
    let encrypted =
        "select count(distinct application_name) filter (where ssl) = 2, bool_and(ssl) is not false
        from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'testkit_relay'";
    until(|| async { sql.query_one(encrypted, &[]).await.unwrap().get(0) }).await; // the pool's, and the one that listens
    assert!(sql.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(1));
    assert_eq!(relay.terminate().await, Some(0));

    let mongo = world.mongo.url.as_str();
    let stranger = Authority::new();
    let own = authority.file.display().to_string();
    let other = url.replace(&own, &stranger.file.display().to_string());
    let said = refusal(&world, &other, mongo).await;
    assert!(said.contains("UnknownIssuer; name its authority in the URL, as sslrootcert=FILE"), "{said}");
    let said = refusal(&world, &url.replace("@localhost:", "@127.0.0.1:"), mongo).await;
    assert!(said.contains("certificate not valid for name \"127.0.0.1\""), "{said}");
    // Whoever asks for nothing gets no unverified TLS on the way to another machine, and no TLS to this one.
    let elsewhere = url.split('?').next().unwrap().replace("@localhost:", "@db.example:");
    let said = refusal(&world, &format!("{elsewhere}?hostaddr=127.0.0.1"), mongo).await;
    assert!(said.contains("UnknownIssuer; name its authority"), "{said}");
    let said = refusal(&world, url.split('?').next().unwrap(), mongo).await;
    assert!(said.contains("no pg_hba.conf entry") && said.contains("no encryption"), "{said}");

    // A server that has none: required, it is refused; where it is only taken as offered, it is done without.
    let plain = world.relay_url();
    let said = refusal(&world, &format!("{plain}?sslmode=require"), mongo).await;
    assert!(said.contains("server does not support TLS"), "{said}");
    let (before, host) = plain.rsplit_once('@').unwrap();
    let (host, database) = host.split_once(':').unwrap();
    let elsewhere = format!("{before}@db.example:{database}?hostaddr={host}");
    let output =
        world.program(mongo, &["run", "--once"]).env("DATABASE_URL", elsewhere).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_statement_is_cancelled_over_tls_too() {
    let authority = Authority::new();
    let server = PostgresServer::with_tls(&authority).await;
    let sql = shared::postgres::connect(&server.url, "test").await.unwrap();
    let is_running = async || -> bool {
        let running = "select count(*) > 0 from pg_stat_activity where query = 'select pg_sleep(600)' and state = 'active'";
        sql.query_one(running, &[]).await.unwrap().get(0)
    };
    let wait = std::time::Duration::from_secs(20);
    let pool = shared::postgres::pool(&url_as("relay", &server.url), "relay", 1, wait).unwrap();
    let connection = pool.get().await.unwrap();
    tokio::select! {
        end = connection.batch_execute("select pg_sleep(600)") => panic!("{end:?}"),
        () = until(&is_running) => {}
    }
    shared::postgres::abandon(connection).await;
    until(async || !is_running().await).await;
}

#[tokio::test]
async fn mongodb_is_spoken_to_over_verified_tls_or_not_at_all() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let set = ReplicaSet::protected(&authority).await; // refuses what is not encrypted
    let world = World { mongo: MongoDatabase::at(&set.admin_url()).await, ..World::new().await };
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let postgres = world.relay_url();
    let own = authority.file.display().to_string();
    let said =
        refusal(&world, &postgres, &set.admin_url().replace(&own, &stranger.file.display().to_string()))
            .await;
    assert!(said.contains("MongoDB unreachable since") && said.contains("UnknownIssuer"), "{said}");
    let by_another_name = set
        .admin_url()
        .replace("@127.0.0.1:", "@localhost:")
        .replace("replicaSet=own", "directConnection=true");
    let said = refusal(&world, &postgres, &by_another_name).await;
    assert!(said.contains("not valid for name"), "{said}");
    assert!(world.state(email).await.starts_with("waiting//0") || world.state(email).await.ends_with("/0"));
    let output = world.program(&set.admin_url(), &["run", "--once"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn a_url_that_switches_the_verification_off_is_bad_configuration() {
    let world = World::new().await;
    for option in ["tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames", "TLSINSECURE"] {
        let url = format!("mongodb://relay:hunter2@db.example/?tls=true&{option}=true");
        let output = world.program(&url, &["check-config"]).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(
            said.contains("is refused: anybody could pass for the server") && said.contains("tlsCAFile"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
    let mut command = world.program(&world.mongo.url, &["check-config"]);
    let output = command
        .env("DATABASE_URL", "postgres://relay:hunter2@db.example/x?sslmode=allow")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(64) && said.contains("DATABASE_URL") && said.contains("sslmode must be"),
        "{said}"
    );
}
