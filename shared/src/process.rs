//! What a well-behaved process does whatever its work: logs, secrets, signals, words with systemd.

use sd_notify::NotifyState;
use std::{
    env, fmt, fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    str::FromStr,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt::layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Exit code for bad configuration; all problems have been printed.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;

/// A value that never shows: passwords, tokens, URLs that hold them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The folder whose files are secrets, each named as its variable: systemd's LoadCredential= sets it, and a mounted folder may do as well.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A secret given directly as `name`, as a file `name_FILE`, or else as the file `name` in `CREDENTIALS_DIRECTORY`. An empty value is no
/// value, since systemd and Kubernetes pass those.
///
/// # Errors
/// Both given, or the file cannot be read: the text says which variable and why.
pub fn secret(name: &str, value: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let value = value.filter(|secret| !secret.expose().trim().is_empty());
    let file = file.filter(|path| !path.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_FILE are both set: keep one")),
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, Some(path)) => secret_in(path).map_err(|problem| format!("{name}_FILE: {problem}")).map(Some),
        (None, None) => match env::var_os(CREDENTIALS) {
            Some(folder) => secret_of(name, &PathBuf::from(folder).join(name)),
            None => Ok(None),
        },
    }
}

/// No file is no secret; one that cannot be looked at is a mistake.
fn secret_of(name: &str, path: &Path) -> Result<Option<Secret>, String> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => secret_in(path).map(Some),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
    .map_err(|problem| format!("{name} in {CREDENTIALS}: {problem}"))
}

fn secret_in(path: &Path) -> Result<Secret, String> {
    match fs::read_to_string(path) {
        // Editors and `echo` end a file with a line break that nobody means.
        Ok(text) if !text.trim().is_empty() => Ok(Secret(text.trim().to_owned())),
        Ok(_) => Err(format!("{} is empty", path.display())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text".into()),
        }
    }
}

/// What `RUST_LOG` lets through; `info` where it is not set or empty.
///
/// # Errors
/// It is no filter: what is wrong with it.
pub fn log_filter() -> Result<EnvFilter, String> {
    let text = std::env::var("RUST_LOG").unwrap_or_default();
    let text = if text.trim().is_empty() { "info" } else { text.trim() };
    EnvFilter::try_new(text).map_err(|error| format!("RUST_LOG: {error}"))
}

/// Sends log lines to standard error; standard output belongs to a command's result. A filter that is none lets `info` through:
/// the check of the configuration reports it. What crates say through `log` goes nowhere, at whatever level: the Postgres driver says
/// the values of statements there, and the HTML parser what it reads, which are people's mails.
pub fn start_logging(format: LogFormat) {
    let filter = log_filter().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, in a test process, changes nothing.
    let _ = match format {
        LogFormat::Json => {
            let lines = json_subscriber::layer()
                .flatten_event(true)
                .flatten_current_span_on_top_level(true)
                .with_current_span(false)
                .with_span_list(false);
            registry.with(lines.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            registry.with(layer().with_ansi(ansi).with_writer(std::io::stderr)).try_init()
        }
    };
}

/// A token that SIGTERM or SIGINT cancels, and where nothing is read again for it, SIGHUP too. A second signal ends the process at
/// once: somebody is in a hurry.
///
/// # Errors
/// The handlers cannot be installed.
pub fn shutdown_on_signal(hangup_too: bool) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = hangup_too.then(|| signal(SignalKind::hangup())).transpose()?;
    let cancel = token.clone();
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                Some(_) = next(hangup.as_mut()) => {}
            }
            if round > 0 {
                std::process::exit(1);
            }
            tracing::info!("shutting down");
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            cancel.cancel();
        }
    });
    Ok(token)
}

async fn next(signal: Option<&mut Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => None,
    }
}

/// Lets this process have as many files open as it may: the soft limit is kept low for the sake of old programs only.
pub fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Tells systemd that the program serves; does nothing elsewhere.
pub fn notify_ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Tells systemd that the configuration is being read again, until [`notify_ready`].
pub fn notify_reloading() {
    let now = NotifyState::monotonic_usec_now().ok();
    let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
    let _ = sd_notify::notify(&states);
}

/// Where systemd asks for signs of life (WatchdogSec=), gives them for as long as there is progress, asked for about twice in that
/// time; without, systemd restarts the program. Does nothing elsewhere.
pub async fn keep_watchdog(mut makes_progress: impl FnMut() -> bool, end: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut made_progress = true;
    while end.run_until_cancelled(tokio::time::sleep(limit / 2)).await.is_some() {
        let makes_progress = makes_progress();
        if makes_progress {
            // Beside the others' threads: it waits when systemd does not read.
            let _ = spawn_blocking(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
        } else if made_progress {
            tracing::error!("no progress: the service manager will restart this program");
        }
        made_progress = makes_progress;
    }
}

/// The text without NUL (Postgres cannot store it), cut to 500 characters: what every stored error text goes through.
#[must_use]
pub fn bounded_error(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(500).collect()
}
