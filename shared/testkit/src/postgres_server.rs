//! A Postgres server of a test's own, to be crashed and started again.
//!
//! The programs are in the folder that `POSTGRES_BIN` names (`deploy/dev test` sets it), else on PATH. It listens on 127.0.0.1, and
//! the process and its data go with the value, also when the test fails. Postgres refuses to run as root: then it is `postgres`,
//! or `nobody` where there is no such user.

use crate::{Authority, certificates::private_to, free_port, postgres, unique_name};
use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything that a server does may take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with an empty, migrated database.
#[derive(Debug)]
pub struct PostgresServer {
    /// How to connect.
    pub url: String,
    port: u16,
    folder: PathBuf,
    user: Option<u32>,
    settings: Vec<String>,
    process: Option<Child>,
}

impl PostgresServer {
    /// Creates and starts it; durable, as in production.
    pub async fn new() -> PostgresServer {
        let mut server = PostgresServer::prepared();
        server.start().await;
        postgres::migrate(&server.url).await;
        server
    }

    /// One that speaks TLS alone, as `localhost`, asks the programs' users for their passwords, and is known by this authority.
    pub async fn with_tls(authority: &Authority) -> PostgresServer {
        let mut server = PostgresServer::prepared();
        let certificate = authority.certificate_for(&["localhost"], server.user);
        let rules = server.folder.join("rules");
        fs::write(&rules, "hostssl all postgres all trust\nhostssl all all all scram-sha-256\n")
            .expect("a temporary file");
        private_to(server.user, &rules);
        server.settings.extend([
            "ssl=on".into(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", certificate.display()),
            format!("hba_file={}", rules.display()),
        ]);
        server.url = format!(
            "postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}",
            server.port,
            authority.file.display()
        );
        server.start().await;
        postgres::migrate(&server.url).await;
        server
    }

    fn prepared() -> PostgresServer {
        let port = free_port();
        let folder = env::temp_dir().join(format!("{}_postgres", unique_name()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let user = unprivileged_user();
        if let Some(user) = user {
            chown(&folder, Some(user), None).expect("root gives its folder away");
        }
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let server = PostgresServer { url, port, folder, user, settings: Vec::new(), process: None };
        let data = server.folder.join("data");
        let made = server
            .command("initdb")
            .args(["-U", "postgres", "-E", "UTF8", "--no-locale", "--auth=trust", "--no-sync", "-D"])
            .arg(&data)
            .status();
        assert!(made.is_ok_and(|status| status.success()), "initdb: run the tests by `deploy/dev test`");
        server
    }

    fn command(&self, program: &str) -> Command {
        let folder = env::var_os("POSTGRES_BIN").unwrap_or_default();
        let mut command = Command::new(PathBuf::from(folder).join(program));
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        let spawned = self
            .command("postgres")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-c", &format!("port={}", self.port), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .spawn();
        self.process = Some(spawned.expect("postgres starts: run the tests by `deploy/dev test`"));
        let deadline = Instant::now() + PATIENCE;
        while shared::postgres::connect(&self.url, "testkit").await.is_err() {
            assert!(Instant::now() < deadline, "Postgres does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it at once, without a word to its clients and without writing anything more: what was not on the disk is lost.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            // To the first process alone: it ends the others, hard, and itself.
            let _ = Command::new("kill").args(["-s", "QUIT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.crash();
        let _ = fs::remove_dir_all(&self.folder); // what is left behind harms no other test
    }
}

/// Who runs what refuses to be run by root; None where we are not root.
pub(crate) fn unprivileged_user() -> Option<u32> {
    (id("").expect("id -u works") == 0)
        .then(|| id("postgres").or_else(|| id("nobody")).expect("a user for Postgres"))
}

/// The number of a user; of our own without a name.
fn id(user: &str) -> Option<u32> {
    let output = Command::new("id").arg("-u").args((!user.is_empty()).then_some(user)).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
