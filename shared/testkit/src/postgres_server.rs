//! A Postgres server of a test's own, to be crashed, frozen, killed and started again.
//!
//! The programs are in the folder that `POSTGRES_BIN` names (`deploy/dev test` sets it), else on PATH. It listens on 127.0.0.1, and
//! the process and its data go with the value, also when the test fails. Postgres refuses to run as root: then it is `postgres`,
//! or `nobody` where there is no such user.

use crate::{Authority, SmallDisk, certificates::private_to, free_port, postgres, unique_name};
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
    disk: Option<SmallDisk>,
}

impl PostgresServer {
    /// Creates and starts it; durable, as in production.
    pub async fn new() -> PostgresServer {
        PostgresServer::with(&[], 0).await
    }

    /// With these settings, on a disk of so many MiB; 0 = the one that everything is on.
    pub async fn with(settings: &[&str], disk_mib: u32) -> PostgresServer {
        let mut server = PostgresServer::prepared(disk_mib);
        server.settings.extend(settings.iter().map(ToString::to_string));
        server.start().await;
        postgres::migrate(&server.url).await;
        server
    }

    /// The disk of its own, if there is one: only root may have it.
    #[must_use]
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// One that speaks TLS alone, as `localhost`, asks the programs' users for their passwords, and is known by this authority.
    pub async fn with_tls(authority: &Authority) -> PostgresServer {
        let mut server = PostgresServer::prepared(0);
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

    fn prepared(disk_mib: u32) -> PostgresServer {
        let port = free_port();
        let folder = env::temp_dir().join(format!("{}_postgres", unique_name()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let disk = (disk_mib > 0).then(|| SmallDisk::mount(&folder, disk_mib)).flatten();
        let user = unprivileged_user();
        if let Some(user) = user {
            chown(&folder, Some(user), None).expect("root gives its folder away");
        }
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let server = PostgresServer { url, port, folder, user, settings: Vec::new(), process: None, disk };
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
            assert!(!self.has_ended(), "Postgres has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it does not run, by itself or because it was ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// SIGKILL for all of its processes; returns when the last is gone.
    pub fn kill(&mut self) {
        self.freeze(); // else the first one could make another meanwhile
        let all = self.processes();
        signal("KILL", &all);
        if let Some(mut process) = self.process.take() {
            let _ = process.wait();
        }
        let deadline = Instant::now() + PATIENCE;
        while all.iter().any(|pid| PathBuf::from(format!("/proc/{pid}")).exists()) {
            assert!(Instant::now() < deadline, "Postgres' processes do not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All of its processes keep their connections and do nothing until [`PostgresServer::thaw`].
    pub fn freeze(&self) {
        // the first one alone first: it makes no new ones then
        signal("STOP", self.processes().get(..1).unwrap_or_default());
        signal("STOP", &self.processes());
    }

    /// They go on where they were.
    pub fn thaw(&self) {
        signal("CONT", &self.processes());
    }

    /// The first one and what it has started.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let Some(first) = self.process.as_ref().map(Child::id) else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        [first].into_iter().chain(children).collect()
    }

    /// Ends it at once, without a word to its clients and without writing anything more: what was not on the disk is lost.
    pub fn crash(&mut self) {
        self.thaw(); // a frozen process would never read the signal
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
        self.disk = None;
        let _ = fs::remove_dir_all(&self.folder); // what is left behind harms no other test
    }
}

/// Those that have ended meanwhile are none of its business.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    let _ = Command::new("kill").args(["-s", name]).args(pids).stderr(Stdio::null()).status();
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
