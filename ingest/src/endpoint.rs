//! The paths of the public listener, the replaced service's own among them. Pure.

use crate::{problem::Problem, source::Source};

/// `incoming_emails.source` of ready debt updates.
pub const DEBT_UPDATE_SOURCE: &str = "api";

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// A webhook of a provider.
    Webhook(Source),
    /// A ready debt update.
    DebtUpdates,
    /// Where the mail with this id stands.
    Email(&'a str),
    /// What a problem with this name means; empty = all of them.
    Problem(&'a str),
    /// The interface document.
    OpenApi,
    /// Liveness and readiness.
    Health,
}

impl<'a> Endpoint<'a> {
    /// Finds the endpoint of a path.
    ///
    /// # Errors
    /// [`Problem::UnknownPath`], [`Problem::UnknownSource`].
    pub fn of(path: &'a str) -> Result<Endpoint<'a>, Problem> {
        let below =
            |front: &str| path.strip_prefix(front).filter(|rest| !rest.is_empty() && !rest.contains('/'));
        Ok(match path {
            "/v1/debt-updates" => Endpoint::DebtUpdates,
            "/api/v1/zendesk/webhook" => Endpoint::Webhook(Source::Zendesk),
            "/api/v1/resend/webhook" => Endpoint::Webhook(Source::Standard),
            "/problems" => Endpoint::Problem(""),
            "/openapi.json" => Endpoint::OpenApi,
            "/livez" | "/readyz" => Endpoint::Health,
            _ => {
                if let Some(name) = below("/v1/webhooks/") {
                    Endpoint::Webhook(Source::from_name(name).ok_or(Problem::UnknownSource)?)
                } else if let Some(name) = below("/problems/") {
                    Endpoint::Problem(name)
                } else {
                    let id = below("/v1/emails/").or_else(|| below("/api/v1/zendesk/status/"));
                    Endpoint::Email(id.ok_or(Problem::UnknownPath)?)
                }
            }
        })
    }

    /// The methods, as the header Allow names them.
    #[must_use]
    pub const fn methods(self) -> &'static str {
        match self {
            Endpoint::Webhook(_) | Endpoint::DebtUpdates => "POST",
            Endpoint::Email(_) | Endpoint::Problem(_) | Endpoint::OpenApi | Endpoint::Health => "GET, HEAD",
        }
    }

    /// The answer where it is not switched on.
    #[must_use]
    pub const fn unknown(self) -> Problem {
        match self {
            Endpoint::Webhook(_) => Problem::UnknownSource,
            Endpoint::DebtUpdates
            | Endpoint::Email(_)
            | Endpoint::Problem(_)
            | Endpoint::OpenApi
            | Endpoint::Health => Problem::UnknownPath,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Endpoint::Webhook(source) => source.name(),
            Endpoint::DebtUpdates => DEBT_UPDATE_SOURCE,
            Endpoint::Email(_) => "status",
            Endpoint::Problem(_) => "problems",
            Endpoint::OpenApi => "openapi",
            Endpoint::Health => "health",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_design_leads_to_its_endpoint_and_no_other_does() {
        for (path, endpoint) in [
            ("/v1/webhooks/zendesk", Endpoint::Webhook(Source::Zendesk)),
            ("/v1/webhooks/standard", Endpoint::Webhook(Source::Standard)),
            ("/api/v1/zendesk/webhook", Endpoint::Webhook(Source::Zendesk)),
            ("/api/v1/resend/webhook", Endpoint::Webhook(Source::Standard)),
            ("/v1/debt-updates", Endpoint::DebtUpdates),
            ("/v1/emails/17", Endpoint::Email("17")),
            ("/api/v1/zendesk/status/17", Endpoint::Email("17")),
            ("/problems", Endpoint::Problem("")),
            ("/problems/overloaded", Endpoint::Problem("overloaded")),
            ("/openapi.json", Endpoint::OpenApi),
            ("/livez", Endpoint::Health),
            ("/readyz", Endpoint::Health),
        ] {
            assert_eq!(Endpoint::of(path), Ok(endpoint), "{path}");
        }
        for path in [
            "/",
            "/v1/emails/",
            "/v1/emails/1/2",
            "/v1/webhooks/",
            "/metrics",
            "/v1/debt-updates/",
            "//livez",
        ] {
            assert_eq!(Endpoint::of(path), Err(Problem::UnknownPath), "{path}");
        }
        assert_eq!(Endpoint::of("/v1/webhooks/mailgun"), Err(Problem::UnknownSource));
    }
}
