//! A `PgBouncer` of a test's own, in transaction mode: each transaction gets whichever connection to Postgres is free.
//!
//! The program is the one that `PGBOUNCER` names (`deploy/dev test` sets it), else the `pgbouncer` on PATH. It listens on 127.0.0.1,
//! and goes with the value. Like Postgres it refuses to run as root.

use crate::{free_port, postgres_server::unprivileged_user, unique_name};
use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long its start may take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running pooler before one server, for all of its databases.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    target: String,
    folder: PathBuf,
    process: Child,
}

impl PgBouncer {
    /// Before the server of this URL, with at most so many connections to it for each user and database.
    pub async fn before(url: &str, connections: u8) -> PgBouncer {
        let (credentials, rest) =
            url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).expect("a URL with a user");
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let target = rest.split(['/', '?']).next().unwrap_or(rest).to_owned();
        let (host, target_port) = target.rsplit_once(':').unwrap_or((&target, "5432"));
        let port = free_port();
        let folder = env::temp_dir().join(format!("{}_pgbouncer", unique_name()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let roles = ["ingest", "relay", "operator"].map(|role| format!("\"testkit_{role}\" \"testkit\"\n"));
        let users = format!("\"{user}\" \"{password}\"\n{}", roles.concat());
        let settings = format!(
            "[databases]\n* = host={host} port={target_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
            unix_socket_dir =\nauth_type = trust\nauth_file = users.txt\npool_mode = transaction\n\
            default_pool_size = {connections}\nmax_client_conn = 200\n"
        );
        let own = unprivileged_user();
        for (name, text) in [("users.txt", users), ("pgbouncer.ini", settings)] {
            fs::write(folder.join(name), text).expect("a temporary file");
            if own.is_some() {
                chown(folder.join(name), own, None).expect("root gives its file away");
            }
        }
        let program =
            env::var_os("PGBOUNCER").filter(|path| !path.is_empty()).unwrap_or_else(|| "pgbouncer".into());
        let mut command = Command::new(program);
        command.arg("pgbouncer.ini").current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.join("log")).expect("a log can be written"));
        if let Some(own) = own {
            command.uid(own);
        }
        let process = command.spawn().expect("PgBouncer starts: run the tests by `deploy/dev test`");
        let bouncer = PgBouncer { port, target, folder, process };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = shared::postgres::connect(&bouncer.instead(url), "testkit").await {
            let log = fs::read_to_string(bouncer.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PgBouncer does not answer: {error}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bouncer
    }

    /// The URL with this pooler in place of the server.
    #[must_use]
    pub fn instead(&self, url: &str) -> String {
        url.replacen(&self.target, &format!("127.0.0.1:{}", self.port), 1)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder); // what is left behind harms no other test
    }
}
