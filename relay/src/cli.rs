//! The command line: what each command prints and how it exits.

#![expect(clippy::print_stdout, reason = "standard output is a command's result; logs go to standard error")]

mod extract;

use crate::{
    config::{Config, Settings},
    operator, relay,
};
use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use deadpool_postgres::Client as Connection;
use serde_json::json;
use shared::{
    message::EmailId,
    money::Amount,
    postgres,
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
    /// Bring the Postgres schema up to date; safe to run by any number of processes
    Migrate,
    /// Mails that wait for a person's decision
    #[command(subcommand)]
    Review(Review),
    /// What the extractor makes of one mail, given as the webhook's JSON body; needs neither Postgres nor MongoDB
    Extract {
        /// A file with the mail, or with a sample that has it as `webhook` [default: standard input]
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Check the configuration without connecting
    CheckConfig,
}

#[derive(Debug, Subcommand)]
enum Review {
    /// The mails that are held, the oldest first
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
        #[arg(long, env = "USER")]
        by: String,
        /// The right amount, such as 1234.56
        #[arg(long)]
        amount: Option<Amount>,
    },
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
        Command::Extract { file } => match cli.settings.extractor() {
            Ok(model) => {
                extract::run(file.as_deref(), cli.json, model.as_ref()).await.map(|()| ExitCode::SUCCESS)
            }
            Err(problems) => return bad_configuration(&problems),
        },
        Command::Migrate | Command::Review(_) => match cli.settings.database() {
            Ok(url) => on_database(&cli.command, cli.json, &url).await,
            Err(problem) => return bad_configuration(&[problem]),
        },
    };
    result.unwrap_or_else(|error| {
        eprintln!("relay: {error:#}");
        ExitCode::FAILURE
    })
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
    let shutdown = process::shutdown_on_signal().context("cannot listen for signals")?;
    relay::run(&config, context, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_once(context: crate::context::Context) -> anyhow::Result<ExitCode> {
    let shutdown = process::shutdown_on_signal().context("cannot listen for signals")?;
    relay::check_postgres(&context).await.map_err(anyhow::Error::msg)?;
    let (summary, end) = relay::run_once(&context, &shutdown).await;
    println!("{}", serde_json::to_string(&summary)?);
    end?;
    Ok(ExitCode::SUCCESS)
}

async fn on_database(command: &Command, json: bool, url: &Secret) -> anyhow::Result<ExitCode> {
    match command {
        Command::Migrate => migrate(json, url).await?,
        Command::Review(Review::List { limit }) => {
            let held = operator::held(&connection(url).await?, i64::from(*limit)).await?;
            if json {
                println!("{}", serde_json::to_string(&held)?);
            } else {
                print_held(held);
            }
        }
        Command::Review(Review::Accept { email_id, by, amount }) => {
            if by.trim().is_empty() || by.len() > 100 {
                bail!("--by must name who decides, in at most 100 characters");
            }
            let message_id = operator::accept(&connection(url).await?, *email_id, *amount, by).await?;
            if json {
                println!("{}", json!({ "email_id": email_id, "message_id": message_id }));
            } else {
                println!("email {email_id}: accepted by {by}, message {message_id} will write it");
            }
        }
        Command::Run { .. } | Command::Extract { .. } | Command::CheckConfig => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(json: bool, url: &Secret) -> anyhow::Result<()> {
    let applied = postgres::migrate(url.expose()).await?;
    let schema = postgres::schema_of_this_build();
    if json {
        println!("{}", json!({ "applied": applied, "schema": schema }));
        return Ok(());
    }
    for name in &applied {
        println!("applied {name}");
    }
    println!("the schema is at version {schema}");
    Ok(())
}

fn print_held(held: Vec<operator::Held>) {
    println!("{:>8}  {:>15}  {:>15}  reason", "email", "stored", "mail says");
    for mail in held {
        let text = |amount: Option<String>| amount.unwrap_or_else(|| "-".into());
        let (old, new) = (text(mail.old_amount), text(mail.new_amount));
        println!("{:>8}  {old:>15}  {new:>15}  {}", mail.email_id, mail.reason);
    }
}

async fn connection(url: &Secret) -> anyhow::Result<Connection> {
    let pool = postgres::pool(url.expose(), "relay-operator", 1, Duration::from_secs(5))?;
    pool.get().await.map_err(|error| anyhow::anyhow!("Postgres: {}", postgres::pool_reason(&error)))
}
