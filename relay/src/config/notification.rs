//! The settings of the letters to the firm: mail server, recipients, sender. All of them or none.

use super::{given, path};
use crate::smtp::Mailer;
use clap::Args;
use shared::process::{Secret, secret};

/// As given on the command line and in the environment.
#[derive(Debug, Clone, Args)]
pub struct NotificationSettings {
    /// Mail server: smtp://, smtp://...?tls=required (STARTTLS) or smtps://, user and password in it; without it no letters are sent
    #[arg(long, env = "SMTP_URL", hide_env_values = true, global = true)]
    smtp_url: Option<Secret>,
    /// File that holds SMTP_URL
    #[arg(long, env = "SMTP_URL_FILE", global = true)]
    smtp_url_file: Option<String>,
    /// File with a certificate authority (PEM) to trust beside the system's, for SMTP_URL
    #[arg(long, env = "SMTP_CA_FILE", global = true)]
    smtp_ca_file: Option<String>,
    /// Who gets the letters: 1 to 20 addresses with commas between
    #[arg(long, env = "NOTIFY_TO", hide_env_values = true, global = true)]
    notify_to: Option<String>,
    /// Who they are from: one address; its domain stands in their Message-ID
    #[arg(long, env = "NOTIFY_FROM", hide_env_values = true, global = true)]
    notify_from: Option<String>,
}

impl NotificationSettings {
    /// The mailer, if one is configured.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub(super) fn check(&self) -> Result<Option<Mailer>, Vec<String>> {
        let url = secret("SMTP_URL", self.smtp_url.as_ref(), path(self.smtp_url_file.as_ref()));
        let url = url.map_err(|problem| vec![problem])?;
        let text = |setting: &Option<String>| given(setting.as_deref().unwrap_or_default(), "").to_owned();
        let (to, from, ca_file) = (text(&self.notify_to), text(&self.notify_from), text(&self.smtp_ca_file));
        let settings =
            [("SMTP_URL", url.is_some()), ("NOTIFY_TO", !to.is_empty()), ("NOTIFY_FROM", !from.is_empty())];
        let given_one = settings.iter().find(|(_, is_given)| *is_given);
        let (Some((given_one, _)), url) = (given_one, url) else { return Ok(None) };
        let missing = settings.iter().filter(|(_, is_given)| !is_given);
        let mut problems: Vec<String> = missing
            .map(|(name, _)| format!("{name} is not set, although {given_one} is: all three or none"))
            .collect();
        let ca = match ca_file.as_str() {
            "" => None,
            name => match std::fs::read(name) {
                Ok(pem) => Some(pem),
                Err(error) => {
                    problems.push(format!("SMTP_CA_FILE: cannot read {name}: {error}"));
                    None
                }
            },
        };
        match url {
            Some(url) if problems.is_empty() => {
                Mailer::new(url.expose(), &to, &from, ca.as_deref()).map(Some)
            }
            Some(_) | None => Err(problems),
        }
    }
}
