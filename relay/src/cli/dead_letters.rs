//! `relay dead-letters list|show|requeue|discard`.

use super::{bounded, connection, pause::operation, person, reason, whoever};
use crate::{
    dead_letters::{self, Done, Listing, Selection, Shown},
    outbox::DeadLetterFilter,
};
use clap::{ArgGroup, Args, Subcommand};
use shared::{
    message::{MessageId, Operation},
    process::Secret,
};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Dead letters in groups of the same failure, the largest first
    List {
        /// Of this operation only
        #[arg(long, value_parser = operation)]
        operation: Option<Operation>,
        /// At most this many groups
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One message with all that is known of it, and what persons have done with it
    Show {
        /// The message's id
        id: MessageId,
        /// Show all of what it carries: names, amounts
        #[arg(long)]
        payload: bool,
    },
    /// Let them run again, as the same messages
    Requeue(Requeue),
    /// End them as discarded: nothing of them is written or sent
    Discard(Discard),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "group", "operation", "error_class", "older_than", "all"]))]
pub(super) struct Requeue {
    /// The messages' ids
    #[arg(conflicts_with_all = ["group", "operation", "error_class", "older_than", "all"])]
    ids: Vec<MessageId>,
    /// Those of this group, as `list` names it
    #[arg(long, value_parser = group_name)]
    group: Option<String>,
    /// Those of this operation
    #[arg(long, value_parser = operation)]
    operation: Option<Operation>,
    /// Those of this class of failure
    #[arg(long, value_parser = short)]
    error_class: Option<String>,
    /// Those that are dead for so long, such as 30m, 12h, 3d
    #[arg(long, value_parser = age)]
    older_than: Option<Duration>,
    /// All of them
    #[arg(long, conflicts_with_all = ["group", "operation", "error_class", "older_than"])]
    all: bool,
    /// Refuse to touch more than this many
    #[arg(long, default_value_t = 1000)]
    cap: usize,
    /// Let at most so many per second become due [default: all at once]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Say how many, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who does it; kept
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["ids", "group"]))]
pub(super) struct Discard {
    /// The messages' ids
    ids: Vec<MessageId>,
    /// Those of this group, as `list` names it
    #[arg(long, value_parser = group_name)]
    group: Option<String>,
    /// Why; kept
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Refuse to touch more than this many
    #[arg(long, default_value_t = 1000)]
    cap: usize,
    /// Say how many, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Who does it; kept
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

fn short(text: &str) -> Result<String, String> {
    bounded(text, 100)
}

fn group_name(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let is_name = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name
        .then_some(text)
        .ok_or_else(|| "a group's name has 8 hex digits: see `relay dead-letters list`".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "must be messages per second, from 0.001 to 1000000".into())
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with s, m, h or d, such as 30m, 12h, 3d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let longest = 36_500 * 86_400;
    number.checked_mul(seconds).filter(|age| *age <= longest).map(Duration::from_secs).ok_or_else(wrong)
}

impl Requeue {
    fn selection(&self) -> Selection {
        if !self.ids.is_empty() {
            return Selection::Ids(self.ids.clone());
        }
        let filter = DeadLetterFilter {
            operation: self.operation,
            error_class: self.error_class.clone(),
            older_than: self.older_than,
        };
        Selection::Matching(filter, self.group.clone())
    }
}

pub(super) async fn run(command: &DeadLetters, json: bool, url: &Secret) -> anyhow::Result<()> {
    let mut connection = connection(url).await?;
    match command {
        DeadLetters::List { operation, limit } => {
            let filter = DeadLetterFilter { operation: *operation, ..DeadLetterFilter::default() };
            let listing = dead_letters::listing(&connection, &filter, *limit).await?;
            if json {
                println!("{}", serde_json::to_string(&listing)?);
            } else {
                print_listing(&listing);
            }
        }
        DeadLetters::Show { id, payload } => {
            let shown = dead_letters::show(&connection, *id, *payload).await?;
            if json {
                println!("{}", serde_json::to_string(&shown)?);
            } else {
                print_shown(&shown)?;
            }
        }
        DeadLetters::Requeue(arguments) => {
            let Requeue { cap, rate, dry_run, by, .. } = arguments;
            let selection = arguments.selection();
            let done = dead_letters::requeue(&mut connection, &selection, *cap, *rate, *dry_run, by).await?;
            print_done(&done, json, "run again", "requeued")?;
        }
        DeadLetters::Discard(Discard { ids, group, reason, cap, dry_run, by }) => {
            let selection = match group {
                Some(group) => Selection::Matching(DeadLetterFilter::default(), Some(group.clone())),
                None => Selection::Ids(ids.clone()),
            };
            let done = dead_letters::discard(&mut connection, &selection, *cap, reason, *dry_run, by).await?;
            print_done(&done, json, "be discarded", "discarded")?;
        }
    }
    Ok(())
}

fn print_done(done: &Done, json: bool, will: &str, was: &str) -> anyhow::Result<()> {
    let Done { changed, skipped, dry_run, .. } = done;
    if json {
        println!("{}", serde_json::to_string(done)?);
        return Ok(());
    }
    if *dry_run {
        println!("{changed} would {will}; nothing was changed");
    } else {
        println!("{changed} {was}");
    }
    if *skipped > 0 {
        println!("{skipped} left alone: not dead (any more), or in somebody else's hands");
    }
    Ok(())
}

fn print_listing(listing: &Listing) {
    let Listing { dead, pointless, group_count, groups } = listing;
    if groups.is_empty() {
        println!("no dead letters");
        return;
    }
    println!(
        "{:<8}  {:>7}  {:>9}  {:<20}  {:<20}  {:>9}  operation, class, error",
        "group", "count", "pointless", "first", "last", "sample"
    );
    for group in groups {
        println!(
            "{:<8}  {:>7}  {:>9}  {:<20}  {:<20}  {:>9}  {}, {}: {}",
            group.group,
            group.count,
            group.pointless,
            format!("{:.0}", group.first_dead_at),
            format!("{:.0}", group.last_dead_at),
            group.sample_id,
            group.operation,
            group.error_class,
            group.error
        );
    }
    println!("\ndead letters: {dead}, groups: {group_count}, shown: {}", groups.len());
    if *pointless > 0 {
        println!(
            "{pointless} are pointless: the same sender's later mail is stored for that client, so they would end as superseded"
        );
    }
    println!(
        "look at one: relay dead-letters show ID; then: relay dead-letters requeue|discard ID.. or --group NAME"
    );
}

fn print_shown(shown: &Shown) -> anyhow::Result<()> {
    let Shown { message, group, actions } = shown;
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            println!("  {name:<18} {value}");
        }
    };
    println!("message {}: {}, {}", message.message_id, message.operation, message.state);
    line("mail", message.email_id.map(|id| format!("{id} (relay explain {id})")));
    line("key", Some(message.idempotency_key.clone()));
    line("trace", message.traceparent.clone());
    line("created", Some(format!("{:.3}", message.created_at)));
    line("available", Some(format!("{:.3}", message.available_at)));
    line("client missing since", message.first_missing_at.map(|at| format!("{at:.3}")));
    line("dead since", message.dead_at.map(|at| format!("{at:.3}")));
    line("done at", message.processed_at.map(|at| format!("{at:.3}")));
    line("outcome", message.outcome.clone());
    line("attempts", Some(format!("{} of {} failed", message.retry_count, message.max_retries)));
    line("unfinished claims", Some(message.unfinished_claims.to_string()));
    line("class", message.error_class.clone());
    line("error", message.error.clone());
    line("group", group.clone());
    let pointless = "the same sender's later mail is stored for that client";
    line("pointless", message.pointless.then(|| pointless.into()));
    println!("  payload            {}", serde_json::to_string(&message.payload)?);
    for act in actions {
        println!("  {:.0}  {} by {}: {}", act.at, act.action, act.actor, act.detail);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_rates_have_bounds() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(age("3d"), Ok(Duration::from_secs(259_200)));
        for wrong in ["", "d", "3", "3w", "-1h", "1.5h", "99999999999999999999d", "40000d", "3é"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
