//! `relay replay`: its arguments and its words.

use super::{bad_configuration, connection, moment::moment, named, person, whoever};
use crate::{
    config::Settings,
    replay::{self, Manner, Replayed, Selection},
};
use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use shared::message::{EmailId, Operation};
use std::{num::NonZeroU32, process::ExitCode};

/// At least one of --email, --client and --since has to say which mails; several narrow each other.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// These mails
    #[arg(long = "email", num_args = 1.., value_delimiter = ',', value_name = "EMAIL_ID", required_unless_present_any = ["client", "since"])]
    emails: Vec<EmailId>,
    /// The mails of the client of this case number
    #[arg(long, value_parser = named)]
    client: Option<String>,
    /// The mails that were stored since then: 90m, 2h, 7d, or 2026-02-17, 2026-02-17T09:14 (German time), 2026-02-17T09:14:22Z
    #[arg(long, value_parser = moment)]
    since: Option<Timestamp>,
    /// And before then, written alike
    #[arg(long, value_parser = moment)]
    until: Option<Timestamp>,
    /// Only replays of this operation
    #[arg(long)]
    operation: Option<Kind>,
    /// Replay nothing where the selection has more mails than this
    #[arg(long, default_value_t = 1000)]
    cap: u32,
    /// Messages per second, at most
    #[arg(long, default_value = "100", value_parser = rate)]
    rate: NonZeroU32,
    /// Say what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who asks for it; kept with each message
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

/// What can be replayed.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    CreditorDebtUpdate,
    EmailExtraction,
}

impl From<Kind> for Operation {
    fn from(kind: Kind) -> Operation {
        match kind {
            Kind::CreditorDebtUpdate => Operation::CreditorDebtUpdate,
            Kind::EmailExtraction => Operation::EmailExtraction,
        }
    }
}

impl Replay {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let url = match settings.database() {
            Ok(url) => url,
            Err(problem) => return Ok(bad_configuration(&[problem])),
        };
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            bail!("--since has to be before --until");
        }
        let selection = Selection {
            emails: self.emails.clone(),
            client: self.client.clone(),
            since: self.since,
            until: self.until,
            operation: self.operation.map(Operation::from),
        };
        let manner = Manner { cap: self.cap, rate: self.rate, is_dry: self.dry_run, by: self.by.clone() };
        let replayed = replay::replay(&mut connection(&url).await?, &selection, &manner).await?;
        if json {
            println!("{}", serde_json::to_string(&replayed)?);
        } else {
            print_words(&replayed);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_words(replayed: &Replayed) {
    for mail in &replayed.mails {
        let words = match (mail.operation, mail.message_id, &mail.skipped) {
            (_, _, Some(reason)) => format!("left alone: {reason}"),
            (Some(operation), Some(message_id), None) => format!("message {message_id}: {operation}"),
            (operation, _, None) => format!("would be replayed: {}", operation.unwrap_or_default()),
        };
        println!("email {:>8}  {words}", mail.email_id);
    }
    let Replayed { enqueued, skipped, .. } = replayed;
    let words = if replayed.dry_run { "would be replayed; nothing was changed" } else { "replayed" };
    println!("{enqueued} {words}, {skipped} left alone");
}

/// Messages per second, 1 to 10,000.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = text.trim().parse().ok().filter(|rate: &NonZeroU32| rate.get() <= 10_000);
    rate.ok_or_else(|| "must be a number from 1 to 10000".into())
}
