//! The commands of `ingest` and their exit codes.

use crate::{
    config::{Settings, SourceSettings},
    server,
    source::{Source, standard, zendesk},
};
use anyhow::Context;
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use shared::{
    idempotency_key::generate_idempotency_key,
    process::{self, EXIT_BAD_CONFIGURATION, Secret},
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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Listen for webhooks and debt updates until SIGTERM
    Serve(Box<Settings>),
    /// Print ok, or everything that is wrong with the configuration
    CheckConfig(Box<Settings>),
    /// Print the headers of a signed request for the body on standard input; curl takes them by `-H @FILE`
    Sign(SignArguments),
    /// Print the `generate_idempotency_key` of the JSON payload on standard input
    IdempotencyKey(IdempotencyKeyArguments),
}

#[derive(Debug, clap::Args)]
struct SignArguments {
    /// Whose signature (zendesk|standard)
    #[arg(long, value_parser = source)]
    source: Source,
    /// The secret to sign with, in place of the source's variable
    #[arg(long, value_name = "SECRET")]
    secret: Option<Secret>,
    /// Id of the delivery, source standard only; default: made from the body
    #[arg(long)]
    id: Option<String>,
    /// Time of the signature, unix seconds; default: now
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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
    let done = match Cli::parse().command {
        Command::Serve(settings) => serve(&settings),
        Command::CheckConfig(settings) => check_config(&settings),
        Command::Sign(arguments) => sign(&arguments),
        Command::IdempotencyKey(arguments) => idempotency_key(&arguments),
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
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = process::shutdown_on_signal().context("cannot catch signals")?;
        let serving = server::start(config, shutdown).await?;
        process::notify_ready();
        serving.done.await?;
        Ok(())
    })
}

fn check_config(settings: &Settings) -> Result<(), Failure> {
    settings.read().map_err(Failure::Configuration)?;
    print("ok\n")
}

fn sign(arguments: &SignArguments) -> Result<(), Failure> {
    let (name, verifiers) = (arguments.source.name(), signing(arguments)?);
    let time = arguments.timestamp.map_or_else(|| Ok(Timestamp::now()), Timestamp::from_second)?;
    let body = standard_input()?;
    let headers = match arguments.source {
        Source::Zendesk => verifiers.0.map(|zendesk| zendesk.sign(time, &body)),
        Source::Standard => verifiers.1.map(|standard| standard.sign(arguments.id.as_deref(), time, &body)),
    };
    let mut headers = headers.ok_or_else(|| {
        let variable = format!("{}_WEBHOOK_SECRET", name.to_uppercase());
        Failure::Configuration(vec![format!(
            "no secret to sign with: give --secret, {variable} or {variable}_FILE"
        )])
    })?;
    headers.push(("Content-Type", "application/json".into()));
    if arguments.json {
        let object: serde_json::Map<_, _> =
            headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        return print(&format!("{}\n", serde_json::Value::Object(object)));
    }
    print(&headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>())
}

/// The verifiers of the wanted source, from `--secret` or from the configuration.
fn signing(
    arguments: &SignArguments,
) -> Result<(Option<zendesk::Verifier>, Option<standard::Verifier>), Failure> {
    let mut problems = Vec::new();
    let made = match (&arguments.secret, arguments.source) {
        (None, _) => {
            let verifiers = arguments.sources.read(&mut problems);
            (verifiers.zendesk, verifiers.standard)
        }
        (Some(secret), Source::Zendesk) => (
            zendesk::Verifier::new(secret, false)
                .map_err(|problem| problems.push(format!("--secret {problem}")))
                .ok(),
            None,
        ),
        (Some(secret), Source::Standard) => (
            None,
            standard::Verifier::new(secret)
                .map_err(|problem| problems.push(format!("--secret: {problem}")))
                .ok(),
        ),
    };
    if problems.is_empty() { Ok(made) } else { Err(Failure::Configuration(problems)) }
}

fn idempotency_key(arguments: &IdempotencyKeyArguments) -> Result<(), Failure> {
    let payload =
        serde_json::from_slice(&standard_input()?).context("the payload on standard input is not JSON")?;
    let key = generate_idempotency_key(&arguments.operation, &arguments.aggregate_id, &payload);
    print(&format!("{key}\n"))
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
