//! How long finished messages and the texts of mails stay.

use super::{given, keep, number};
use clap::Args;
use std::time::Duration;

const DAYS: &str = "30";
const MAIL_DAYS: &str = "90";

/// As given on the command line and in the environment. An empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct RetentionSettings {
    /// Days after which a finished message is removed from the outbox [1 to 3650]
    #[arg(long = "retention-days", env = "RELAY_RETENTION_DAYS", default_value = DAYS, global = true)]
    days: String,
    /// Days after its end until the text of a mail is removed; what was read in it stays [1 to 3650]
    #[arg(long = "mail-retention-days", env = "RELAY_MAIL_RETENTION_DAYS", default_value = MAIL_DAYS, global = true)]
    mail_days: String,
}

impl RetentionSettings {
    /// Of messages and of mails. A message repeats a line of its mail, so it may not outlive the text.
    pub(super) fn check(&self, problems: &mut Vec<String>) -> Option<(Duration, Duration)> {
        let days = |name: &str, text: &str| number(name, text, 1..=3650);
        let messages = keep(problems, days("RELAY_RETENTION_DAYS", given(&self.days, DAYS)));
        let mails = keep(problems, days("RELAY_MAIL_RETENTION_DAYS", given(&self.mail_days, MAIL_DAYS)));
        let (messages, mails) = (messages?, mails?);
        if messages > mails {
            problems.push("RELAY_RETENTION_DAYS must not be more than RELAY_MAIL_RETENTION_DAYS: a message repeats a line of its mail".into());
        }
        let duration = |days: u64| Duration::from_secs(days * 86_400);
        Some((duration(messages), duration(mails)))
    }
}
