//! Under a service manager: the socket it holds, the words it hears, the folder of secrets. None of it needs systemd to run.

use crate::harness::*;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};
use testkit::Database;
use tokio::net::{TcpStream, UnixDatagram};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ingest-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> &Folder {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `ingest serve` as a unit starts it: the socket is file 3, the secrets are files of one folder, which alone says where Postgres is.
struct Unit {
    child: Child,
}

impl Unit {
    fn start(socket: &TcpListener, secrets: &Path, environment: &[(&str, &str)]) -> Unit {
        // The shell puts the socket, which it gets as its standard input, to where systemd would, and is replaced by ingest.
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve";
        let socket: OwnedFd = socket.try_clone().unwrap().into();
        let child = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_ingest")])
            .env_clear()
            .env("CREDENTIALS_DIRECTORY", secrets)
            .env("INGEST_ADMIN_LISTEN", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdin(socket)
            .stdout(Stdio::null())
            .spawn();
        Unit { child: child.unwrap() }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    async fn end(mut self) {
        self.signal("TERM");
        let code = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code()).await.unwrap();
        assert_eq!(code, Some(0));
    }
}

fn secrets(name: &str, database: &Database) -> Folder {
    let folder = Folder::new(name);
    folder
        .file("DATABASE_URL", &database.url)
        .file("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET)
        .file("API_TOKENS", TOKEN);
    folder
}

/// A client as proxies are: it keeps its connection until the server says that it ends.
struct KeepAlive {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl KeepAlive {
    /// The status of the answer, or what went wrong.
    async fn send(&mut self, webhook_id: &str) -> Result<u16, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
                let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
                let (sender, driver) = opened.map_err(|error| error.to_string())?;
                tokio::spawn(driver);
                sender
            }
        };
        let body = mail(webhook_id);
        let mut request =
            Request::post(ZENDESK).header("host", "x").header("content-type", "application/json");
        for (name, value) in zendesk_verifier().sign(Timestamp::now(), body.as_bytes()) {
            request = request.header(name, value);
        }
        let answer = connection.send_request(request.body(Full::new(body.into())).unwrap()).await;
        let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
        body.collect().await.map_err(|error| error.to_string())?;
        let ends = head.headers.get("connection").is_some_and(|value| value == "close");
        self.connection = (!ends).then_some(connection);
        Ok(head.status.as_u16())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_program_restarts_behind_the_socket() {
    let database = Database::new().await;
    let secrets = secrets("restart", &database);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut unit = Unit::start(&socket, &secrets.0, &[]);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut connection = KeepAlive { address, connection: None };
                for number in 0.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let outcome = connection.send(&format!("{client}-{number}")).await;
                    assert_eq!(outcome, Ok(200), "client {client}, request {number}");
                    answered.fetch_add(1, SeqCst);
                    if client % 2 == 0 {
                        connection.connection = None; // half of them come by a new connection each time
                    }
                }
            })
        })
        .collect();
    let more = async |count: u64| {
        let goal = answered.load(SeqCst) + count;
        eventually("more answers", || async { answered.load(SeqCst) >= goal }).await;
    };
    for _ in 0..3 {
        more(200).await;
        unit.end().await;
        unit = Unit::start(&socket, &secrets.0, &[]);
    }
    more(200).await;
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    unit.end().await;
    let stored = i64::try_from(answered.load(SeqCst)).unwrap();
    assert_eq!(rows(&database.client().await).await, [stored; 3]);
}

#[tokio::test]
async fn the_service_manager_hears_that_it_is_ready_alive_reloading_and_stopping() {
    let database = Database::new().await;
    let secrets = secrets("notify", &database);
    let path = secrets.0.join("notify");
    let notices = UnixDatagram::bind(&path).unwrap();
    let hear = async |wanted: &str| {
        let mut buffer = [0; 512];
        let heard = tokio::time::timeout(PATIENCE, notices.recv(&mut buffer)).await.expect(wanted).unwrap();
        String::from_utf8_lossy(&buffer[..heard]).into_owned()
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let unit = Unit::start(&socket, &secrets.0, &environment);
    assert_eq!(hear("ready").await.trim(), "READY=1");
    for _ in 0..2 {
        assert_eq!(hear("a sign of life").await.trim(), "WATCHDOG=1");
    }
    unit.signal("HUP");
    let mut heard = hear("a reload").await;
    while heard.trim() == "WATCHDOG=1" {
        heard = hear("a reload").await;
    }
    assert!(heard.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    assert_eq!(hear("the end of the reload").await.trim(), "READY=1");
    let ending = tokio::spawn(unit.end());
    let mut heard = hear("the end").await;
    while heard.trim() == "WATCHDOG=1" {
        heard = hear("the end").await;
    }
    assert_eq!(heard.trim(), "STOPPING=1");
    ending.await.unwrap();
}

#[test]
fn a_secret_of_the_folder_that_cannot_be_used_is_64_and_named() {
    let folder = Folder::new("credentials");
    folder.file("DATABASE_URL", "\n");
    let check = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ingest"));
        program.arg("check-config").env_clear().env("CREDENTIALS_DIRECTORY", &folder.0).output().unwrap()
    };
    let output = check();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("DATABASE_URL in CREDENTIALS_DIRECTORY: ") && said.contains("is empty"), "{said}");
    folder.file("DATABASE_URL", "postgres://ingest@db.example/ingest\n");
    assert_eq!(check().status.code(), Some(0));
}

#[test]
fn a_folder_of_secrets_that_cannot_be_looked_into_is_no_empty_one() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ingest"));
    let output =
        program.arg("check-config").env_clear().env("CREDENTIALS_DIRECTORY", "/dev/null").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ZENDESK_WEBHOOK_SECRET in CREDENTIALS_DIRECTORY: cannot read"), "{said}");
}

#[test]
fn two_sockets_are_refused_with_what_to_change() {
    let socket: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let script = "exec 3<&0 4<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" serve";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ingest")])
        .env_clear()
        .env("DATABASE_URL", "postgres://ingest@127.0.0.1:1/ingest")
        .stdin(socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("2 sockets") && said.contains("ListenStream="), "{said}");
}
