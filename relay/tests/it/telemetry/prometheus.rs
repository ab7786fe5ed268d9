//! A real Prometheus that scrapes both programs with the rules of `deploy/`.

use super::programs::{Programs, get};
use crate::outages::until;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

pub(super) fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file).canonicalize().unwrap()
}

fn tool(variable: &str) -> String {
    let program = std::env::var(variable);
    assert!(program.is_ok(), "{variable} is not set: run the tests by `deploy/dev test`");
    program.unwrap()
}

/// What promtool says; it must be content.
pub(super) fn promtool(arguments: &[&str], input: &str) {
    use std::io::Write;
    let mut command = std::process::Command::new(tool("PROMTOOL"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

pub(super) struct Prometheus {
    _child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    pub(super) async fn scraping(programs: &Programs, name: &str) -> Prometheus {
        let folder = std::env::temp_dir().join(format!("prometheus-{name}"));
        fs::create_dir_all(&folder).unwrap();
        // The sample configuration, for these addresses and in a hurry.
        let sample = fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
        let configuration = sample
            .replace("interval: 15s", "interval: 1s")
            .replace("- alerts.yml", &format!("- {}", deploy("prometheus/alerts.yml").display()))
            .replace("127.0.0.1:9464", &programs.ingest_admin.to_string())
            .replace("\"127.0.0.1:9471\", \"127.0.0.1:9472\"", &format!("\"{}\"", programs.relay_admin));
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(tool("PROMETHEUS"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.console.templates=.", "--web.console.libraries=.", "--log.level=warn"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let prometheus = Prometheus { _child: command.spawn().unwrap(), address, folder };
        until(|| async { get(address, "/-/ready").await.0 == 200 }).await;
        prometheus
    }

    /// The series that a query returns now.
    pub(super) async fn query(&self, query: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC));
        let answer = self.ask(&path).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Every rule: its name, whether it could be evaluated, its state.
    pub(super) async fn rules(&self) -> Vec<(String, String, String)> {
        let answer = self.ask("/api/v1/rules").await;
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let text = |rule: &Value, field: &str| rule[field].as_str().unwrap().to_owned();
        rules.map(|rule| (text(rule, "name"), text(rule, "health"), text(rule, "state"))).collect()
    }

    async fn ask(&self, path: &str) -> Value {
        serde_json::from_str(&get(self.address, path).await.1).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
