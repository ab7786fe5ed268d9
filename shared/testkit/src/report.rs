//! Lines of results of the benches: one JSON object each. And what a process uses.

#![expect(clippy::print_stdout, reason = "standard output is a bench's result; words go to standard error")]

use anyhow::Context as _;
use mongodb::bson::doc;
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

/// A result of one run; `rest` is what belongs to this bench.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Whose.
    pub bench: &'a str,
    /// Of what.
    pub variant: &'a str,
    /// Counted from 1.
    pub run: u32,
    /// How many were worked on.
    pub n: u64,
    /// In this time.
    pub seconds: f64,
    /// Per second.
    pub rate: f64,
    /// More.
    #[serde(flatten)]
    pub rest: Value,
}

impl Line<'_> {
    /// Prints it, rounded.
    pub fn print(mut self) -> anyhow::Result<()> {
        (self.seconds, self.rate) = (rounded(self.seconds), self.rate.round());
        print(&self)
    }
}

/// Any object as a line.
pub fn print<T: Serialize>(line: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}

/// A word for whoever waits.
pub fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// Three decimals.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The parts of several objects in one.
pub fn joined<const N: usize>(parts: [Value; N]) -> Value {
    let maps = parts.into_iter().filter_map(|part| match part {
        Value::Object(map) => Some(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    });
    Value::Object(maps.flatten().collect())
}

/// The figures of the runs, by variant.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// One more figure of a variant.
    pub fn add(&mut self, variant: &str, figure: f64) {
        self.0.entry(variant.to_owned()).or_default().push(figure);
    }

    /// The median of a variant; 0 if it has no run.
    pub fn median(&self, variant: &str) -> f64 {
        self.0.get(variant).map_or(0.0, |figures| percentile(figures, 0.5))
    }

    /// `median`, `min`, `max` of each variant.
    pub fn spread(&self) -> Value {
        let spread = |figures: &Vec<f64>| {
            json!({ "median": rounded(percentile(figures, 0.5)), "min": rounded(percentile(figures, 0.0)),
                "max": rounded(percentile(figures, 1.0)) })
        };
        self.0.iter().map(|(variant, figures)| (variant.clone(), spread(figures))).collect()
    }

    /// The variant of the highest median among those whose name begins so.
    pub fn best(&self, prefix: &str) -> Option<&str> {
        let names = self.0.keys().filter(|name| name.starts_with(prefix));
        names.max_by(|a, b| self.median(a).total_cmp(&self.median(b))).map(String::as_str)
    }
}

/// The figure below which this share of the figures lies; of an even number the upper one of the middle. 0 without figures.
pub fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
    let index = (share * sorted.len() as f64) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// a / b with three decimals; null if there is no b.
pub fn ratio(a: f64, b: f64) -> Value {
    if b > 0.0 { json!(rounded(a / b)) } else { Value::Null }
}

/// The first line: what all figures depend on.
pub async fn machine() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set: use deploy/dev bench")?;
    let sql = shared::postgres::connect(&url, "bench").await?;
    let mut settings = serde_json::Map::new();
    let names = [
        "server_version",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "shared_buffers",
        "max_wal_size",
    ];
    for name in names {
        let row = sql.query_one("select current_setting($1)", &[&name]).await?;
        settings.insert(name.to_owned(), json!(row.get::<_, String>(0)));
    }
    let url = std::env::var("MONGODB_URL").context("MONGODB_URL is not set: use deploy/dev bench")?;
    let mongo = mongodb::Client::with_uri_str(&url).await?.database("admin");
    let mongod = mongo.run_command(doc! { "buildInfo": 1 }).await?;
    let cores = std::thread::available_parallelism()?.get();
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    print(&json!({
        "bench": "machine", "cores": cores, "processor": processor, "memory": memory, "kernel": kernel.trim(),
        "postgres": settings, "mongod": mongod.get_str("version").unwrap_or_default(), "commit": commit(),
        "date": jiff::Timestamp::now().to_string(),
    }))
}

/// The last line: all has been measured.
pub fn end() -> anyhow::Result<()> {
    print(&json!({ "bench": "end", "date": jiff::Timestamp::now().to_string() }))
}

/// `name: value` of a file in /proc.
pub fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Clock ticks per second of /proc/PID/stat; the same on every Linux.
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Debug, Default, Clone, Copy)]
pub struct Usage {
    /// Most memory at any time.
    pub peak_rss_mib: f64,
    /// User and system time.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Of several processes together.
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            peak_rss_mib: self.peak_rss_mib + other.peak_rss_mib,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
        }
    }

    /// As members of a line, named after the program.
    #[must_use]
    pub fn json(self, program: &str) -> Value {
        json!({
            format!("{program}_peak_rss_mib"): rounded(self.peak_rss_mib),
            format!("{program}_cpu_seconds"): rounded(self.cpu_seconds),
        })
    }

    /// Of a running process; None once it has ended.
    pub fn of(pid: u32) -> Option<Usage> {
        let peak = field(&format!("/proc/{pid}/status"), "VmHWM")?;
        let kib: f64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Usage { peak_rss_mib: kib / 1024.0, cpu_seconds: cpu_seconds(pid)? })
    }
}

/// User and system time of a process.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// The commit that is measured, with `+` if files differ from it; null without git.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let here = env!("CARGO_MANIFEST_DIR");
        let output = std::process::Command::new("git").args(["-C", here]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|files| !files.is_empty());
    git(&["rev-parse", "--short=12", "HEAD"]).map(|hash| if changed { format!("{hash}+") } else { hash })
}
