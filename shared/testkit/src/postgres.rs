//! One migrated database per test, copied from a template that the first test migrates.

use crate::{block_on_other_thread, server_url, unique_name};
use sha2::{Digest, Sha256};
use std::{fmt::Write, fs};
use tokio_postgres::Client;

/// A fresh database; dropped with this value.
#[derive(Debug)]
pub struct Database {
    /// How to connect to it.
    pub url: String,
    name: String,
}

impl Database {
    /// A database with the whole schema and no row.
    pub async fn new() -> Database {
        let server = Server::connect().await;
        let template = template_name();
        // One process makes the template, the others wait; the lock goes with the connection.
        server.run("select pg_advisory_lock(7355608121)").await;
        if !server.has(&template).await {
            let half = format!("{template}_half");
            server.run(&format!("drop database if exists {half} with (force)")).await;
            server.run(&format!("create database {half}")).await;
            migrate(&server.url_of(&half)).await;
            // Nobody may be connected to a template while it is copied: the migrations' connections end in their own time.
            server.end_connections(&half).await;
            server.run(&format!("alter database {half} rename to {template}")).await;
        }
        server.run("select pg_advisory_unlock(7355608121)").await;
        Database::copy_of(&server, &template).await
    }

    /// A database without any schema, as before the first `relay migrate`.
    pub async fn empty() -> Database {
        Database::copy_of(&Server::connect().await, "template0").await
    }

    async fn copy_of(server: &Server, template: &str) -> Database {
        let name = unique_name();
        server.run(&format!("create database {name} template {template}")).await;
        Database { url: server.url_of(&name), name }
    }

    /// A database that is equal to this one. Whoever is connected to this one loses the connection.
    ///
    /// As files: fast for a large one, and what is in it need not be written to the WAL.
    pub async fn copy(&self) -> Database {
        let server = Server::connect().await;
        // Else whoever works with it is back before the copy begins.
        server.run(&format!("alter database {} allow_connections false", self.name)).await;
        server.end_connections(&self.name).await;
        let name = unique_name();
        let version = server.client.query_one("select current_setting('server_version_num')::int", &[]).await;
        let by_files = version.expect("the server has a version").get::<_, i32>(0) >= 150_000; // before, always so
        let strategy = if by_files { "strategy file_copy" } else { "" };
        server.run(&format!("create database {name} template {} {strategy}", self.name)).await;
        server.run(&format!("alter database {} allow_connections true", self.name)).await;
        Database { url: server.url_of(&name), name }
    }

    /// Makes it again what a copy of it was: as a restore from a backup does, under those who are connected to it.
    pub async fn restore(&self, earlier: &Database) {
        let server = Server::connect().await;
        server.run(&format!("drop database {} with (force)", self.name)).await;
        server.run(&format!("create database {} template {}", self.name, earlier.name)).await;
    }

    /// A new connection to it.
    pub async fn client(&self) -> Client {
        shared::postgres::connect(&self.url, "test").await.expect("the test's database answers")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        block_on_other_thread(async move {
            Server::connect().await.run(&format!("drop database if exists {name} with (force)")).await;
        });
    }
}

/// Brings a database to the schema, and makes one user for each role of the programs.
pub(crate) async fn migrate(url: &str) {
    let migrated = shared::postgres::migrate(url).await.expect("the migrations run");
    migrated.roles.expect("the tests' user may create roles");
    let client = shared::postgres::connect(url, "testkit").await.expect("the test's database answers");
    for role in ["ingest", "relay", "operator", "monitor"] {
        let user = format!(
            "do $$ begin create user testkit_{role} password 'testkit' in role {role};
            exception when duplicate_object or unique_violation then null; end $$"
        );
        client.batch_execute(&user).await.expect("the tests' user may create users");
    }
}

/// The URL with a user who has nothing but this role, as in production.
#[must_use]
pub fn url_as(role: &str, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("the tests need DATABASE_URL as postgres://...");
    let (authority, path) = rest.split_once('/').expect("the URL of a database has a path");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://testkit_{role}:testkit@{host}/{path}")
}

struct Server {
    url: String,
    client: Client,
}

impl Server {
    async fn connect() -> Server {
        let url = server_url("DATABASE_URL");
        let client =
            shared::postgres::connect(&url, "testkit").await.expect("the Postgres of DATABASE_URL answers");
        Server { url, client }
    }

    async fn run(&self, statement: &str) {
        if let Err(error) = self.client.batch_execute(statement).await {
            panic!("{statement}: {}", shared::postgres::reason(&error));
        }
    }

    async fn end_connections(&self, name: &str) {
        self.run(&format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"
        ))
        .await;
    }

    async fn has(&self, name: &str) -> bool {
        let found = self.client.query_opt("select from pg_database where datname = $1", &[&name]).await;
        found.expect("pg_database is readable").is_some()
    }

    /// The server's URL with another database's name in its path.
    fn url_of(&self, name: &str) -> String {
        let (base, options) =
            self.url.split_once('?').map_or((self.url.as_str(), ""), |(base, options)| (base, options));
        let after_scheme = base.find("://").map_or(0, |at| at + 3);
        let end = base
            .get(after_scheme..)
            .and_then(|rest| rest.find('/'))
            .map_or(base.len(), |at| after_scheme + at);
        let host = base.get(..end).unwrap_or(base);
        if options.is_empty() { format!("{host}/{name}") } else { format!("{host}/{name}?{options}") }
    }
}

/// Changes with every change of a migration, so that an edited schema is never served from an old template.
fn template_name() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("sql/ is there").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "sql")) {
        hash.update(fs::read(file).expect("a migration is readable"));
    }
    hash.finalize().iter().take(6).fold("testkit_template_".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
