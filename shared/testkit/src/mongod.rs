//! MongoDB servers of a test's own: stopped, frozen, killed and started again while relays use them.
//!
//! The program is the one that `MONGOD` names (`deploy/dev test` sets it), else the `mongod` on PATH. Everything listens on
//! 127.0.0.1, and the processes and their data go with the value, also when the test fails.

use crate::{Authority, Wire, certificates::private_to, free_port, unique_name};
use mongodb::{
    Client,
    bson::{Document, doc},
    options::{ClientOptions, ServerAddress, Tls, TlsOptions},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const SET: &str = "own";
/// How long anything that a server does may take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);
/// A member that has not answered by then is asked again: it may be frozen.
const ANSWER: Duration = Duration::from_secs(2);
/// The secondaries elect a new primary after this; less, and a busy machine holds elections that nobody asked for.
const ELECTION_MS: i32 = 1500;

/// The administrator of a protected server, and the password.
const ADMIN: &str = "admin";

/// How a server is set up.
#[derive(Debug, Clone)]
struct Setup {
    arguments: Vec<String>,
    /// Whose certificates it is known by; None = it speaks no TLS.
    authority: Option<PathBuf>,
    oplog_mib: u32,
}

impl Default for Setup {
    /// Unprotected, and small, since several run at once.
    fn default() -> Setup {
        Setup { arguments: Vec::new(), authority: None, oplog_mib: 32 }
    }
}

/// A replica set of a test's own.
#[derive(Debug)]
pub struct ReplicaSet {
    /// How to connect to all of its members.
    pub url: String,
    /// Its servers, running at first.
    pub members: Vec<Mongod>,
    /// The way to each of them, for its clients and the other members, where the set is [`ReplicaSet::behind_wires`].
    pub wires: Vec<Wire>,
}

impl ReplicaSet {
    /// A set of this many members (an odd number), with a primary.
    pub async fn new(members: usize) -> ReplicaSet {
        ReplicaSet::start(members, &Setup::default()).await.initiated(Vec::new()).await
    }

    /// One whose members are reached through wires only, and remember that many MiB of what they wrote. A member that starts
    /// while its wire is cut does not find itself in the set.
    pub async fn behind_wires(members: usize, oplog_mib: u32) -> ReplicaSet {
        let set = ReplicaSet::start(members, &Setup { oplog_mib, ..Setup::default() }).await;
        let mut wires = Vec::new();
        for member in &set.members {
            wires.push(Wire::to(&member.address()).await);
        }
        set.initiated(wires).await
    }

    /// One member that speaks TLS alone, as 127.0.0.1, with a certificate of this authority, and knows its users.
    pub async fn protected(authority: &Authority) -> ReplicaSet {
        let certificate = authority.certificate_for(&["127.0.0.1"], None);
        let key = authority.file.with_file_name("cluster.key");
        fs::write(&key, "the members of this set know each other by it").expect("a temporary file");
        private_to(None, &key);
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let authority = authority.file.clone();
        let file = authority.display().to_string();
        let mut arguments = ["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"]
            .map(String::from)
            .to_vec();
        for (name, file) in
            [("--tlsCertificateKeyFile", &certificate), ("--tlsCAFile", &file), ("--keyFile", &key)]
        {
            arguments.extend([name.to_owned(), file.clone()]);
        }
        let setup = Setup { arguments, authority: Some(authority), ..Setup::default() };
        let mut set = ReplicaSet::start(1, &setup).await.initiated(Vec::new()).await;
        set.url = format!("{}&tls=true&tlsCAFile={file}", set.url);
        let member = set.members.first().expect("a set has members");
        member.admin(doc! { "createUser": ADMIN, "pwd": ADMIN, "roles": ["root"] }).await;
        set
    }

    /// The URL for a user that this database knows.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let url = self.url.replacen("mongodb://", &format!("mongodb://{user}:{password}@"), 1);
        format!("{url}&authSource={database}")
    }

    /// The URL for the administrator of a protected set.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url_as(ADMIN, ADMIN, "admin")
    }

    async fn start(members: usize, setup: &Setup) -> ReplicaSet {
        let mut starting: JoinSet<Mongod> = (0..members).map(|_| Mongod::new(setup.clone())).collect();
        let mut members = Vec::new();
        while let Some(member) = starting.join_next().await {
            members.push(member.expect("a mongod starts"));
        }
        ReplicaSet { url: String::new(), members, wires: Vec::new() }
    }

    async fn initiated(mut self, wires: Vec<Wire>) -> ReplicaSet {
        let addresses: Vec<String> = match wires.as_slice() {
            [] => self.members.iter().map(Mongod::address).collect(),
            wires => wires.iter().map(Wire::address).collect(),
        };
        self.wires = wires;
        self.url = format!("mongodb://{}/?replicaSet={SET}", addresses.join(","));
        self.initiate(&addresses).await;
        self
    }

    async fn initiate(&self, addresses: &[String]) {
        let members: Vec<Document> =
            (0_i32..).zip(addresses).map(|(id, host)| doc! { "_id": id, "host": host }).collect();
        let settings = doc! { "electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 300 };
        let config = doc! { "_id": SET, "members": members, "settings": settings };
        let first = self.members.first().expect("a set has members");
        let initiated = first.ask(doc! { "replSetInitiate": config }, PATIENCE).await;
        initiated.expect("a new set can be initiated");
        for member in &self.members {
            member
                .until("a working member", |hello| is(hello, "isWritablePrimary") || is(hello, "secondary"))
                .await;
        }
        self.primary().await;
    }

    /// The index of the member that takes writes; waits until there is one.
    pub async fn primary(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if member.hello().await.is_some_and(|hello| is(&hello, "isWritablePrimary")) {
                    return index;
                }
            }
            assert!(Instant::now() < deadline, "the replica set has no primary");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One server. What is asked of it directly is answered from its own data, whatever the others of its set think.
#[derive(Debug)]
pub struct Mongod {
    port: u16,
    client: Client,
    process: Option<Child>,
    folder: PathBuf,
    setup: Setup,
}

impl Mongod {
    async fn new(setup: Setup) -> Mongod {
        // Somebody else may have taken the port between the look and the start.
        for _ in 0..5 {
            let mut member = Mongod::prepare(free_port(), setup.clone()).await;
            member.process = Some(member.spawn());
            if member.serves().await {
                return member;
            }
        }
        panic!("no mongod starts here; run the tests by `deploy/dev test`");
    }

    async fn prepare(port: u16, setup: Setup) -> Mongod {
        let host = ServerAddress::Tcp { host: "127.0.0.1".into(), port: Some(port) };
        let tls = setup
            .authority
            .clone()
            .map(|file| Tls::Enabled(TlsOptions::builder().ca_file_path(file).build()));
        let options = ClientOptions::builder()
            .tls(tls)
            .hosts(vec![host])
            .direct_connection(true)
            .server_selection_timeout(ANSWER)
            .build();
        let client = Client::with_options(options).expect("an address is all that a client needs");
        let folder = env::temp_dir().join(format!("{}_mongod", unique_name()));
        fs::create_dir_all(folder.join("data")).expect("a temporary folder");
        Mongod { port, client, process: None, folder, setup }
    }

    fn spawn(&self) -> Child {
        let program =
            env::var_os("MONGOD").filter(|path| !path.is_empty()).unwrap_or_else(|| "mongod".into());
        let log = fs::File::create(self.folder.join("log")).expect("a log can be written");
        // Test commands: replication can be held back. The shutdown waits for nobody.
        let (port, oplog) = (self.port.to_string(), self.setup.oplog_mib.to_string());
        let spawned = Command::new(&program)
            .args(["--port", &port, "--bind_ip", "127.0.0.1", "--nounixsocket", "--replSet", SET, "--quiet"])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", &oplog])
            // Else the journal takes 300 MB before anything is written.
            .args(["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=10MB)"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--setParameter", "enableTestCommands=1"])
            .args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"])
            .args(&self.setup.arguments)
            .arg("--dbpath")
            .arg(self.folder.join("data"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(log)
            .spawn();
        spawned.unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run the tests by `deploy/dev test`, or set MONGOD",
                Path::new(&program).display()
            )
        })
    }

    /// Waits until it answers; false if it has ended instead.
    async fn serves(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.hello().await.is_none() {
            if self.has_ended() {
                return false;
            }
            assert!(Instant::now() < deadline, "mongod does not answer: {}", self.last_words());
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Whether it does not run, by itself or because it was ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|status| status.is_some()))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of this member alone, also while it is a secondary.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it answers to a command on `admin`.
    pub async fn admin(&self, command: Document) -> Document {
        self.ask(command, PATIENCE).await.expect("the server carries out a command")
    }

    /// None if it does not answer in time, or refuses.
    async fn ask(&self, command: Document, limit: Duration) -> Option<Document> {
        timeout(limit, self.client.database("admin").run_command(command).into_future()).await.ok()?.ok()
    }

    async fn hello(&self) -> Option<Document> {
        self.ask(doc! { "hello": 1 }, ANSWER).await
    }

    async fn until(&self, what: &str, condition: impl Fn(&Document) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.hello().await.is_some_and(|hello| condition(&hello)) {
            assert!(Instant::now() < deadline, "mongod is not {what}: {}", self.last_words());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "mongod does not end: {}", self.last_words());
            sleep(Duration::from_millis(10)).await;
        }
        self.process = None;
    }

    /// Starts it again, on the same port and data, and waits until it works as a member.
    pub async fn start(&mut self) {
        self.launch();
        assert!(self.serves().await, "mongod has ended: {}", self.last_words());
        self.until("a working member", |hello| is(hello, "isWritablePrimary") || is(hello, "secondary"))
            .await;
    }

    /// Starts it again, and waits for nothing.
    pub fn launch(&mut self) {
        self.process = Some(self.spawn());
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill(); // it may have ended by itself
            let _ = process.wait();
        }
    }

    /// It keeps its connections and does nothing until [`Mongod::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// It goes on where it was.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Whether it had writes that the others of its set did not, and has taken them back.
    #[must_use]
    pub fn has_rolled_back(&self) -> bool {
        self.folder.join("data").join("rollback").exists()
    }

    /// Its number, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("the server runs").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} cannot be sent");
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder); // what is left behind harms no other test
    }
}

fn is(hello: &Document, what: &str) -> bool {
    hello.get_bool(what).unwrap_or(false)
}
