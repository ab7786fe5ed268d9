//! A real mail server for the tests: aiosmtpd in a process of its own, which keeps its letters and fails as it is told.

use relay::smtp::Mailer;
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

pub(crate) const TO: &str = "akten@kanzlei.example";
pub(crate) const FROM: &str = "relay@kanzlei.example";

pub(crate) struct MailServer {
    arguments: Vec<String>,
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
}

impl MailServer {
    pub(crate) async fn new() -> MailServer {
        MailServer::with(&[]).await
    }

    pub(crate) async fn with(arguments: &[&str]) -> MailServer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("letters_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = MailServer { arguments, child: None, port: 0, folder };
        server.start().await;
        server
    }

    /// On the port that it had before.
    pub(crate) async fn start(&mut self) {
        let aiosmtpd = std::env::var("AIOSMTPD").unwrap();
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp_server.py"))
            .arg(&self.folder)
            .args(["--with-parent", "--port", &self.port.to_string()])
            .args(&self.arguments)
            .env("PYTHONPATH", aiosmtpd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        self.child = Some(child);
    }

    /// At once, whatever it is doing.
    pub(crate) async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// What fails from now on.
    pub(crate) fn control(&self, control: &Value) {
        fs::write(self.folder.join("part.control"), control.to_string()).unwrap();
        fs::rename(self.folder.join("part.control"), self.folder.join("control.json")).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    pub(crate) fn mailer(&self) -> Mailer {
        Mailer::new(&self.url(), TO, FROM, None).unwrap()
    }

    /// All that it has taken, in order.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "letter"));
        files.sort();
        files.iter().map(|file| Letter(serde_json::from_slice(&fs::read(file).unwrap()).unwrap())).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A letter as the server has it.
#[derive(Debug)]
pub(crate) struct Letter(pub(crate) Value);

impl Letter {
    pub(crate) fn header(&self, name: &str) -> &str {
        let headers = self.0["headers"].as_array().unwrap();
        let mut values =
            headers.iter().filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap());
        let value = values.next().unwrap_or_default();
        assert_eq!(values.next(), None, "{name} twice");
        value
    }

    pub(crate) fn text(&self) -> &str {
        self.0["text"].as_str().unwrap()
    }

    pub(crate) fn html(&self) -> &str {
        self.0["html"].as_str().unwrap()
    }
}
