//! The commands of `ingest` and their exit codes.

use crate::{
    config::{Settings, SourceSettings},
    server,
    source::{Source, standard},
};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use shared::{
    idempotency_key::generate_idempotency_key,
    process::{self, EXIT_BAD_CONFIGURATION},
};
use std::{
    io::{Read, Write},
    process::ExitCode,
};

/// Takes signed webhooks and ready debt updates, and stores each once: mail, idempotency key and first message in one
/// transaction.
#[derive(Debug, Parser)]
#[command(
    name = "ingest",
    version,
    after_help = "Every secret may also be a file: NAME_FILE. An empty variable counts as unset.\n\
        Exit codes: 0 ok, 1 failure, 2 usage, 64 bad configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Listen for webhooks and debt updates until SIGTERM; SIGHUP reads the secrets and tokens again from their files
    Serve(Box<Settings>),
    /// Print ok, or everything that is wrong with the configuration
    CheckConfig(Box<Settings>),
    /// Print a signed request for the body on standard input: its headers, or all of it
    #[command(after_help = "Send it with one of:\n  \
        ingest sign --source zendesk < mail.json | curl -H @- --data-binary @mail.json URL\n  \
        ingest sign --source zendesk --url URL < mail.json | curl --config - (before curl 8.2 for bodies of up to 100 kB)")]
    Sign(SignArguments),
    /// Print the `generate_idempotency_key` of the JSON payload on standard input
    IdempotencyKey(IdempotencyKeyArguments),
}

#[derive(Debug, clap::Args)]
struct SignArguments {
    /// Whose signature (zendesk|standard)
    #[arg(long, value_parser = source)]
    source: Source,
    /// Id of the delivery, source standard only; default: made from the body
    #[arg(long, value_parser = delivery_id)]
    id: Option<String>,
    /// Time of the signature, unix seconds; default: now
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..=Timestamp::MAX.as_second()))]
    timestamp: Option<i64>,
    /// Where to send it: prints the whole request, body included, in the form that `curl --config -` reads
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    sources: SourceSettings,
}

#[derive(Debug, clap::Args)]
struct IdempotencyKeyArguments {
    /// Front of the key, such as `creditor_debt_update`
    #[arg(long)]
    operation: String,
    /// Middle of the key, such as the id of the email
    #[arg(long)]
    aggregate_id: String,
}

fn delivery_id(text: &str) -> Result<String, String> {
    let refused = || "must be 1 to 255 visible ASCII characters and no dot: the verifier refuses others";
    standard::is_id(text).then(|| text.to_owned()).ok_or_else(|| refused().into())
}

fn source(name: &str) -> Result<Source, String> {
    Source::from_name(name).ok_or_else(|| "must be zendesk or standard".into())
}

/// Why a command ends without success.
enum Failure {
    Configuration(Vec<String>),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Other(error.into())
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let Cli { command, json } = Cli::parse();
    let done = match command {
        Command::Serve(settings) => serve(&settings),
        Command::CheckConfig(settings) => check_config(&settings, json),
        Command::Sign(arguments) => sign(&arguments, json),
        Command::IdempotencyKey(arguments) => idempotency_key(&arguments, json),
    };
    // A closed standard error leaves nobody to tell.
    let mut stderr = std::io::stderr().lock();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(problems)) => {
            for problem in problems {
                let _ = writeln!(stderr, "ingest: {problem}");
            }
            ExitCode::from(EXIT_BAD_CONFIGURATION)
        }
        Err(Failure::Other(error)) => {
            let _ = writeln!(stderr, "ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: &Settings) -> Result<(), Failure> {
    let config = settings.read().map_err(Failure::Configuration)?;
    process::start_logging(config.log_format);
    process::raise_file_limit();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = process::shutdown_on_signal(false).context("cannot catch signals")?;
        let serving = server::start(config, shutdown).await?;
        serving.access.reload_on_hangup(settings.access().clone()).context("cannot catch signals")?;
        process::notify_ready();
        serving.done.await?;
        Ok(())
    })
}

fn check_config(settings: &Settings, json: bool) -> Result<(), Failure> {
    match settings.read() {
        Ok(_) if json => print_json(&json!({"ok": true})),
        Ok(_) => print("ok\n"),
        Err(problems) if json => {
            print_json(&json!({"ok": false, "problems": problems}))?;
            Err(Failure::Configuration(Vec::new())) // told already
        }
        Err(problems) => Err(Failure::Configuration(problems)),
    }
}

fn sign(arguments: &SignArguments, json: bool) -> Result<(), Failure> {
    let (source, id) = (arguments.source, arguments.id.as_deref());
    if source == Source::Zendesk && id.is_some() {
        let words = "--id belongs to --source standard: Zendesk's signature covers no id";
        Cli::command().error(ErrorKind::ArgumentConflict, words).exit();
    }
    let mut problems = Vec::new();
    let verifiers = arguments.sources.read(false, 1, &mut problems);
    if !problems.is_empty() {
        return Err(Failure::Configuration(problems));
    }
    let time = arguments.timestamp.map_or_else(|| Ok(Timestamp::now()), Timestamp::from_second)?;
    let body = standard_input()?;
    let headers = match source {
        Source::Zendesk => verifiers.zendesk.map(|zendesk| zendesk.sign(time, &body)),
        Source::Standard => verifiers.standard.map(|standard| standard.sign(id, time, &body)),
    };
    let mut headers = headers.ok_or_else(|| {
        let variable = format!("{}_WEBHOOK_SECRET", source.name().to_uppercase());
        Failure::Configuration(vec![format!("no secret to sign with: set {variable} or {variable}_FILE")])
    })?;
    headers.push(("Content-Type", "application/json".into()));
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}"));
    match (&arguments.url, json) {
        (None, false) => print(&lines.map(|line| line + "\n").collect::<String>()),
        (Some(url), false) => print(&curl_config(url, lines, &text(body)?)),
        (url, true) => {
            let object = headers.iter().map(|(name, value)| ((*name).into(), value.as_str().into()));
            let object = Value::Object(object.collect::<Map<_, _>>());
            match url {
                None => print_json(&object),
                Some(url) => print_json(&json!({"url": url, "headers": object, "body": text(body)?})),
            }
        }
    }
}

/// A body as text. What ingest takes is JSON, and so UTF-8; NUL ends a line of curl's configuration.
fn text(body: Vec<u8>) -> Result<String, Failure> {
    let text = String::from_utf8(body).context("the body on standard input is not UTF-8")?;
    if text.contains('\0') {
        Err(anyhow::anyhow!("the body on standard input holds a NUL byte").into())
    } else {
        Ok(text)
    }
}

/// A request as curl's configuration file has it. These five characters need an escape there.
fn curl_config(url: &str, headers: impl Iterator<Item = String>, body: &str) -> String {
    let line = |option: &str, value: &str| {
        let mut escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        for (character, name) in [('\n', "\\n"), ('\r', "\\r"), ('\t', "\\t")] {
            escaped = escaped.replace(character, name);
        }
        format!("{option} = \"{escaped}\"\n")
    };
    let headers: String = headers.map(|header| line("header", &header)).collect();
    line("url", url) + &headers + &line("data-raw", body)
}

fn idempotency_key(arguments: &IdempotencyKeyArguments, json: bool) -> Result<(), Failure> {
    let payload =
        serde_json::from_slice(&standard_input()?).context("the payload on standard input is not JSON")?;
    let key = generate_idempotency_key(&arguments.operation, &arguments.aggregate_id, &payload);
    if json { print_json(&json!({"key": key})) } else { print(&format!("{key}\n")) }
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(())
}

fn print_json(object: &Value) -> Result<(), Failure> {
    print(&format!("{object}\n"))
}
