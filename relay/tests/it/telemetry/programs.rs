//! Both programs as they run in production, with JSON lines of their own crates at debug, and what they say.

use crate::{outages::until, world::World};
use ingest::source::zendesk;
use jiff::Timestamp;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

pub(super) const ZENDESK_SECRET: &str = "zendesk-secret-of-the-observed-run";
pub(super) const API_TOKEN: &str = "token-of-the-observed-run";
/// The servers of the tests ask for none; it must not be shown all the same.
pub(super) const PASSWORD: &str = "password-of-the-observed-run";

pub(super) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    fn start(mut command: Command) -> Program {
        command.env("LOG_FORMAT", "json").env("RUST_LOG", "trace");
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (keep, mut said) = (lines.clone(), BufReader::new(child.stderr.take().unwrap()).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = said.next_line().await {
                keep.lock().unwrap().push(line);
            }
        });
        Program { child, lines }
    }

    /// Every line so far; each has to be one JSON object.
    pub(super) fn said(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let object = |line: &String| {
            let value = serde_json::from_str(line);
            assert!(value.as_ref().is_ok_and(Value::is_object), "no JSON object: {line}");
            value.unwrap()
        };
        lines.iter().map(object).collect()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line with these fields, as soon as it is there.
    pub(super) async fn says(&self, fields: &[(&str, &str)]) -> Value {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let find = || {
            let has = |line: &&Value| fields.iter().all(|(name, value)| text(&line[*name]) == *value);
            self.said().iter().find(has).cloned()
        };
        until(|| async { find().is_some() }).await;
        find().unwrap()
    }

    async fn stop(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        assert!(self.child.wait().await.unwrap().success());
    }
}

pub(super) struct Programs {
    pub(super) ingest: Program,
    pub(super) relay: Program,
    pub(super) ingest_address: SocketAddr,
    pub(super) ingest_admin: SocketAddr,
    pub(super) relay_admin: SocketAddr,
    zendesk: zendesk::Verifier,
}

impl Programs {
    /// Both over the same database, ready. `mongodb_url` is where the relay writes; `more` are variables of the relay.
    pub(super) async fn start(world: &World, mongodb_url: &str, more: &[(&str, &str)]) -> Programs {
        let mut database_url = url::Url::parse(&world.database.url).unwrap();
        database_url.set_password(Some(PASSWORD)).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_relay")).with_file_name("ingest");
        assert!(program.exists(), "{} is built with the whole workspace: deploy/dev test", program.display());
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env("DATABASE_URL", database_url.as_str())
            .env("INGEST_LISTEN", "127.0.0.1:0")
            .env("INGEST_ADMIN_LISTEN", "127.0.0.1:0")
            .env("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET)
            .env("API_TOKENS", API_TOKEN)
            .env_remove("STANDARD_WEBHOOK_SECRET");
        let ingest = Program::start(command);
        let mut command = world.program(mongodb_url, &["run"]);
        command.env("DATABASE_URL", database_url.as_str()).envs(more.iter().copied()).stdout(Stdio::null());
        let relay = Program::start(command);
        let address = |line: &Value, name: &str| line[name].as_str().unwrap().parse().unwrap();
        let listening = ingest.says(&[("message", "listening")]).await;
        let started = relay.says(&[("message", "relay started")]).await;
        let programs = Programs {
            ingest_address: address(&listening, "address"),
            ingest_admin: address(&listening, "admin"),
            relay_admin: address(&started, "admin"),
            zendesk: zendesk::Verifier::new(&ZENDESK_SECRET.parse().unwrap(), false, 1).unwrap(),
            ingest,
            relay,
        };
        for admin in [programs.ingest_admin, programs.relay_admin] {
            until(|| async { get(admin, "/readyz").await.0 == 200 }).await;
        }
        programs
    }

    /// Posts a body as Zendesk does.
    pub(super) async fn webhook(&self, body: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let signed = self.zendesk.sign(Timestamp::now(), body.as_bytes());
        let signed = signed.iter().map(|(name, value)| (*name, value.as_str()));
        self.post("/v1/webhooks/zendesk", &signed.chain(headers.iter().copied()).collect::<Vec<_>>(), body)
            .await
    }

    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        exchange(self.ingest_address, &head).await
    }

    /// The metrics of both.
    pub(super) async fn metrics(&self) -> [String; 2] {
        [get(self.ingest_admin, "/metrics").await.1, get(self.relay_admin, "/metrics").await.1]
    }

    /// Ends both, as systemd would.
    pub(super) async fn stop(&mut self) {
        self.ingest.stop().await;
        self.relay.stop().await;
    }
}

/// Status and body; 0 if nobody answers. HTTP/1.0, so that no server cuts its answer into chunks.
pub(super) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")).await
}

async fn exchange(address: SocketAddr, request: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (0, String::new()) };
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
