//! Who may send: the webhook secrets and API tokens in force. They are read again from their files on SIGHUP, between two requests.

use crate::{
    config::AccessSettings,
    endpoint::{DEBT_UPDATE_SOURCE, Endpoint},
    problem::Problem,
    source::{Source, Verifiers, key_used},
};
use hyper::HeaderMap;
use shared::{bearer::Tokens, process};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::signal::unix::{SignalKind, signal};

/// What requests are checked with.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The sources that are switched on.
    pub verifiers: Verifiers,
    /// The tokens of the structured endpoints; None = they do not exist.
    pub tokens: Option<Tokens>,
}

impl Access {
    /// What has no secret and no token does not exist.
    #[must_use]
    pub fn switched_on(&self, endpoint: Endpoint<'_>) -> bool {
        match endpoint {
            Endpoint::Webhook(source) => self.verifiers.enabled(source),
            Endpoint::DebtUpdates | Endpoint::Email(_) => self.tokens.is_some(),
            Endpoint::Problem(_) | Endpoint::OpenApi | Endpoint::Health => true,
        }
    }

    /// Whether anything at all can be stored.
    #[must_use]
    pub fn lets_anybody_in(&self) -> bool {
        self.tokens.is_some() || Source::ALL.iter().any(|source| self.verifiers.enabled(*source))
    }

    /// Lets pass who has a token.
    ///
    /// # Errors
    /// [`Problem::UnknownPath`], [`Problem::TokenInvalid`].
    pub fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let tokens = self.tokens.as_ref().ok_or(Problem::UnknownPath)?;
        let place = tokens.admit(headers).ok_or(Problem::TokenInvalid)?;
        key_used(DEBT_UPDATE_SOURCE, place, 1);
        Ok(())
    }
}

/// The access in force; a request uses the one that it began with.
#[derive(Debug, Clone, Default)]
pub struct CurrentAccess(Arc<RwLock<Arc<Access>>>);

impl CurrentAccess {
    /// This one, from the start.
    #[must_use]
    pub fn new(access: Access) -> CurrentAccess {
        CurrentAccess(Arc::new(RwLock::new(Arc::new(access))))
    }

    /// The one in force now.
    #[must_use]
    pub fn get(&self) -> Arc<Access> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force.
    pub fn replace(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    /// Reads the secrets again at each SIGHUP. What cannot be used changes nothing: the old ones stay in force, and the log says why.
    ///
    /// # Errors
    /// The signal cannot be caught.
    pub fn reload_on_hangup(&self, settings: AccessSettings) -> std::io::Result<()> {
        let (current, mut hangup) = (self.clone(), signal(SignalKind::hangup())?);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                process::notify_reloading();
                let mut problems = Vec::new();
                let access = settings.read(&mut problems);
                if problems.is_empty() {
                    current.replace(access);
                    tracing::info!("secrets and tokens read again from their files");
                } else {
                    tracing::error!(?problems, "the secrets were not read again, the old ones stay in force");
                }
                process::notify_ready();
            }
        });
        Ok(())
    }
}
