//! The command line: what each command prints and how it exits.

#![expect(clippy::print_stdout, reason = "standard output is a command's result; logs go to standard error")]

mod apply;
mod correct;
mod dead_letters;
mod erase;
mod explain;
mod extract;
mod import_legacy;
mod moment;
mod pause;
mod reconcile;
mod replay;
mod status;

use crate::{
    config::{Config, Settings},
    mode, relay,
    review::{self, Choice},
    workers::Identity,
};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use shared::{
    message::EmailId,
    money::Amount,
    postgres::{self, Connection, Migrated},
    process::{self, EXIT_BAD_CONFIGURATION, Secret},
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Carries the messages of the Postgres outbox to their effect: reads creditors' mails, updates MongoDB, keeps the score.
///
/// Exit codes: 0 ok, 1 failure, 2 usage, 64 bad configuration.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// One JSON value on standard output instead of words
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work until SIGTERM; any number of relays may run side by side
    Run {
        /// Work until nothing is due, print the counts as one JSON object, and end; exit 1 if a server is away
        #[arg(long)]
        once: bool,
    },
    /// Bring the Postgres schema up to date; safe to run by any number of processes. With --shadow the database is a shadow's from then on
    Migrate,
    /// One mail's whole way: times, steps, attempts, errors, decisions; or a creditor entry's, through all its mails
    Explain(explain::Explain),
    /// Put an amount right that a mail has brought into MongoDB, or give back the one before it
    Correct(correct::Correct),
    /// Make new messages from what is known of the selected mails now
    Replay(replay::Replay),
    /// Remove a client's personal data, with a receipt; changes nothing without --apply
    Erase(erase::Erase),
    /// Take over mails, keys and unfinished messages of the service that this one replaces; changes nothing without --apply
    ImportLegacy(import_legacy::ImportLegacy),
    /// Break glass: write debt updates, given as JSON lines, to MongoDB without Postgres
    Apply(apply::Apply),
    /// Mails that wait for a person's decision
    #[command(subcommand)]
    Review(Review),
    /// Messages that ended badly and wait for a person
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Stop an operation on all relays at once; what is under way ends, what comes waits
    Pause(pause::PauseArguments),
    /// Let the relays go on with a paused operation
    Resume(pause::ResumeArguments),
    /// What waits, who works, what is in the way
    Status(status::StatusArguments),
    /// What the extractor makes of one mail, given as the webhook's JSON body; needs neither Postgres nor MongoDB
    Extract {
        /// A file with the mail, or with a sample that has it as `webhook` [default: standard input]
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Compare MongoDB with what was written there; without --since also look through all its clients, which no relay does by itself,
    /// for what is not known here (after a restore of Postgres, after `relay apply`); changes nothing without --repair
    Reconcile(reconcile::ReconcileArguments),
    /// How healthy the mails of the last days are, and what to do; exit 0 from 0.95, 1 below, 3 if it cannot be told
    Audit(reconcile::AuditArguments),
    /// Check the configuration without connecting
    CheckConfig,
}

#[derive(Debug, Subcommand)]
enum Review {
    /// The mails that are held, or parked since their client is missing; the oldest first
    List {
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Write the held amount after all, or the one given
    Accept {
        /// The mail's id
        email_id: EmailId,
        /// Who decides; kept with the decision
        #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
        by: String,
        /// The right amount, such as 1234.56
        #[arg(long)]
        amount: Option<Amount>,
        /// The right client: its case number, or the id that `review list --json` shows
        #[arg(long, value_parser = named)]
        client: Option<String>,
        /// The right creditor entry: the key that `review list --json` shows
        #[arg(long, value_parser = named)]
        creditor: Option<String>,
    },
    /// Write nothing: the mail waits no more
    Reject {
        /// The mail's id
        email_id: EmailId,
        /// Who decides; kept with the decision
        #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
        by: String,
        /// Why; kept with the decision
        #[arg(long, default_value = "a person rejects the amount", value_parser = reason)]
        reason: String,
    },
}

/// Who decides or acts; an empty variable counts as not set.
fn person(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Ok(whoever()) } else { bounded(text, 100) }
}

/// Who runs this, where no variable says it: services and containers have none.
fn whoever() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let named = std::env::var("LOGNAME").ok().filter(|name| !name.trim().is_empty());
    let uid = || std::fs::metadata("/proc/self").map(|process| format!("uid {}", process.uid()));
    named.or_else(|| uid().ok()).unwrap_or_else(|| "operator".into())
}

fn named(text: &str) -> Result<String, String> {
    bounded(text, 200)
}

fn reason(text: &str) -> Result<String, String> {
    bounded(text, 500)
}

fn bounded(text: &str, most: usize) -> Result<String, String> {
    let text: String = text.trim().chars().filter(|character| *character != '\0').collect();
    let fits = (1..=most).contains(&text.chars().count());
    fits.then_some(text).ok_or_else(|| format!("must have 1 to {most} characters"))
}

/// Runs the command and turns its end into an exit code; a failure is told once, on standard error.
pub async fn main(cli: Cli) -> ExitCode {
    process::start_logging(cli.settings.log_format());
    let result = match &cli.command {
        Command::CheckConfig => match checked(&cli.settings).await {
            Ok(_) => {
                let words = if cli.json { r#"{"ok":true}"# } else { "ok" };
                println!("{words}");
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Run { once } => match checked(&cli.settings).await {
            Ok((_, context)) if *once => run_once(context).await,
            Ok((config, context)) => run(config, context).await,
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Reconcile(arguments) => match checked(&cli.settings).await {
            Ok((config, context)) => {
                reconcile::reconcile(&context, config.reconcile_rows_per_second, cli.json, arguments).await
            }
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Audit(arguments) => match checked(&cli.settings).await {
            Ok((_, context)) => reconcile::run_audit(&context, cli.json, arguments).await,
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Extract { file } => match cli.settings.extractor() {
            Ok(model) => {
                extract::run(file.as_deref(), cli.json, model.as_ref()).await.map(|()| ExitCode::SUCCESS)
            }
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Explain(explain) => explain.run(cli.json, &cli.settings).await,
        Command::Correct(correct) => correct.run(cli.json, &cli.settings).await,
        Command::Replay(replay) => replay.run(cli.json, &cli.settings).await,
        Command::Apply(apply) => apply.run(cli.json, &cli.settings).await,
        Command::Erase(erase) => erase.run(cli.json, &cli.settings).await,
        Command::ImportLegacy(import) => import.run(cli.json, &cli.settings).await,
        Command::Migrate => {
            match cli.settings.postgres_itself().and_then(|url| Ok((url, cli.settings.is_shadow()?))) {
                Ok((url, is_shadow)) => migrate(cli.json, &url, is_shadow).await.map(|()| ExitCode::SUCCESS),
                Err(problem) => return bad_configuration(&[problem]),
            }
        }
        Command::Review(_)
        | Command::DeadLetters(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Status(_) => match cli.settings.database() {
            Ok(url) => on_database(&cli.command, cli.json, &url).await,
            Err(problem) => return bad_configuration(&[problem]),
        },
    };
    result.unwrap_or_else(|error| {
        eprintln!("relay: {}", told(&error));
        ExitCode::FAILURE
    })
}

/// The error and its causes, each once. The driver's own text would add the row that was refused, which is somebody's mail.
fn told(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        let postgres = cause.downcast_ref::<tokio_postgres::Error>();
        let text = postgres.map_or_else(|| cause.to_string(), postgres::reason);
        if !words.last().is_some_and(|last| last.contains(&text)) {
            words.push(text);
        }
        if postgres.is_some() {
            break;
        }
    }
    words.join(": ")
}

fn bad_configuration(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("relay: {problem}");
    }
    ExitCode::from(EXIT_BAD_CONFIGURATION)
}

/// The configuration and what it leads to, without touching the network.
async fn checked(settings: &Settings) -> Result<(Config, crate::context::Context), Vec<String>> {
    let config = settings.check()?;
    let context = relay::context(&config).await.map_err(|problem| vec![problem])?;
    Ok((config, context))
}

async fn run(config: Config, context: crate::context::Context) -> anyhow::Result<ExitCode> {
    let shutdown = process::shutdown_on_signal(true).context("cannot listen for signals")?;
    relay::run(&config, context, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_once(context: crate::context::Context) -> anyhow::Result<ExitCode> {
    let shutdown = process::shutdown_on_signal(true).context("cannot listen for signals")?;
    relay::check_postgres(&context).await.map_err(anyhow::Error::msg)?;
    let (summary, end) = relay::run_once(&context, &shutdown).await;
    println!("{}", serde_json::to_string(&summary)?);
    end?;
    Ok(ExitCode::SUCCESS)
}

async fn on_database(command: &Command, json: bool, url: &Secret) -> anyhow::Result<ExitCode> {
    match command {
        Command::Review(Review::List { limit }) => {
            let held = review::held(&connection(url).await?, i64::from(*limit)).await?;
            if json {
                println!("{}", serde_json::to_string(&held)?);
            } else {
                print_held(held);
            }
        }
        Command::Review(Review::Accept { email_id, by, amount, client, creditor }) => {
            let choice = Choice { amount: *amount, client: client.clone(), creditor: creditor.clone() };
            let accepted = review::accept(&mut connection(url).await?, *email_id, choice, by).await?;
            if json {
                println!("{}", serde_json::to_string(&accepted)?);
                return Ok(ExitCode::SUCCESS);
            }
            println!("email {email_id}: accepted by {by}, message {} will write it", accepted.message_id);
            if let (Some(email), Some(amount)) = (accepted.newer_email_id, accepted.newer_amount) {
                println!(
                    "note: something newer is stored for this entry ({amount} EUR of email {email}): the message will end as superseded"
                );
            } else if !accepted.entry_is_known {
                println!(
                    "note: which entry this means is not known yet; if something newer is stored for it, the message will end as superseded"
                );
            }
        }
        Command::Review(Review::Reject { email_id, by, reason }) => {
            let message_id = review::reject(&mut connection(url).await?, *email_id, reason, by).await?;
            if json {
                println!("{}", json!({ "email_id": email_id, "message_id": message_id }));
            } else {
                println!("email {email_id}: rejected by {by}, nothing will be written");
            }
        }
        Command::DeadLetters(command) => dead_letters::run(command, json, url).await?,
        Command::Pause(arguments) => pause::pause(arguments, json, url).await?,
        Command::Resume(arguments) => pause::resume(arguments, json, url).await?,
        Command::Status(arguments) => status::run(arguments, json, url).await?,
        Command::Run { .. }
        | Command::Migrate
        | Command::Extract { .. }
        | Command::Explain(_)
        | Command::Correct(_)
        | Command::Replay(_)
        | Command::Apply(_)
        | Command::Erase(_)
        | Command::ImportLegacy(_)
        | Command::Reconcile(_)
        | Command::Audit(_)
        | Command::CheckConfig => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(json: bool, url: &Secret, is_shadow: bool) -> anyhow::Result<()> {
    let Migrated { applied, roles } = postgres::migrate(url.expose()).await?;
    if is_shadow {
        let worker = Identity::of_this_process().worker;
        let refusal = mode::admit(&connection(url).await?, true, &worker).await?;
        refusal.map_or(Ok(()), |text| Err(anyhow::Error::msg(text)))?;
    }
    let schema = postgres::schema_of_this_build();
    if json {
        println!("{}", json!({ "applied": applied, "schema": schema, "roles_problem": roles.err() }));
        return Ok(());
    }
    for name in &applied {
        println!("applied {name}");
    }
    println!("the schema is at version {schema}");
    match roles {
        Ok(()) => println!("the roles ingest, relay, operator and monitor have their rights"),
        Err(problem) => println!("note: {problem}"),
    }
    Ok(())
}

fn print_held(held: Vec<review::Held>) {
    println!("{:>8}  {:<6}  {:>15}  {:>15}  reason", "email", "state", "stored", "mail says");
    for mail in held {
        let text = |amount: Option<String>| amount.unwrap_or_else(|| "-".into());
        let (old, new) = (text(mail.old_amount), text(mail.new_amount));
        println!("{:>8}  {:<6}  {old:>15}  {new:>15}  {}", mail.email_id, mail.state, mail.reason);
        for (client, entry) in review::pairs(&mail.candidates) {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let field = |value: &Value, name: &str| value.get(name).map_or_else(|| "-".into(), text);
            println!(
                "          client {} ({}), creditor {} ({})",
                field(client, "aktenzeichen"),
                field(client, "client_id"),
                field(entry, "entry_key"),
                field(entry, "name")
            );
        }
    }
}

async fn connection(url: &Secret) -> anyhow::Result<Connection> {
    let pool = postgres::pool(url.expose(), "relay-operator", 1, Duration::from_secs(5))?;
    pool.get().await.map_err(|error| anyhow::anyhow!("Postgres: {}", postgres::pool_reason(&error)))
}
