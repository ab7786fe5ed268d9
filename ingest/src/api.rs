//! Routes, and the way of a request to its response.
//!
//! The order is: does the endpoint exist, may the sender use it, is it JSON, what does it say, which delivery is it, one
//! commit.

use crate::{
    access::{Access, CurrentAccess},
    commit::{Answer, AnswerKind, CommitRequest},
    config::Config,
    debt_update,
    endpoint::{DEBT_UPDATE_SOURCE, Endpoint},
    openapi,
    problem::Problem,
    problem_pages,
    request_body::{BodyLimits, HeldBody, discard, receive},
    request_key,
    source::Source,
    store::Store,
};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use jiff::Timestamp;
use serde_json::json;
use shared::{
    admin::{self, Readiness},
    http::{Reply, reply},
    message::EmailId,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::Semaphore;

/// What every request needs.
#[derive(Debug)]
pub struct App {
    access: CurrentAccess,
    bodies: BodyLimits,
    store: Arc<Store>,
    readiness: Readiness,
}

/// Answers a request, whatever it is.
pub async fn handle(app: Arc<App>, request: Request<Incoming>) -> Reply {
    let started = Instant::now();
    let (head, mut body) = request.into_parts();
    let endpoint = Endpoint::of(head.uri.path());
    let label = endpoint.as_ref().map_or("none", |endpoint| endpoint.label());
    let answered = match endpoint {
        Ok(endpoint) => app.answer(endpoint, &head, &mut body).await,
        Err(problem) => Err(problem),
    };
    let (outcome, reply) = match answered {
        Ok((outcome, reply)) => (outcome, reply),
        Err(problem) => (problem.name(), problem.reply()),
    };
    // An early answer would be lost in a reset while the client still writes. Who waits for a 100 Continue writes nothing.
    let late = reply.status() == StatusCode::REQUEST_TIMEOUT || head.headers.contains_key(header::EXPECT);
    if !body.is_end_stream() && !late {
        discard(&mut body).await;
    }
    metrics::counter!("ingest_requests_total", "source" => label, "outcome" => outcome).increment(1);
    tracing::debug!(source = label, outcome, milliseconds = started.elapsed().as_millis(), "request");
    reply
}

impl App {
    /// Everything switched on that the configuration switches on.
    #[must_use]
    pub fn new(config: &Config, access: CurrentAccess, readiness: Readiness, store: Arc<Store>) -> Arc<App> {
        let budget = Arc::new(Semaphore::new(config.limits.body_budget_bytes));
        Arc::new(App {
            access,
            bodies: BodyLimits { bytes: config.limits.body_bytes, time: config.limits.body_timeout, budget },
            store,
            readiness,
        })
    }

    /// The outcome's name and the response.
    async fn answer(
        &self,
        endpoint: Endpoint<'_>,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<(&'static str, Reply), Problem> {
        let access = self.access.get();
        if !access.switched_on(endpoint) {
            return Err(endpoint.unknown());
        }
        let allowed = endpoint.methods();
        if !allowed.split(", ").any(|method| head.method == *method) {
            return Err(Problem::MethodNotAllowed(allowed));
        }
        match endpoint {
            Endpoint::Webhook(source) => {
                let (request, held) = self.webhook(&access, source, head, body).await?;
                Ok(stored(self.store.store(request, held).await?))
            }
            Endpoint::DebtUpdates => {
                let (request, held) = self.debt_update(&access, head, body).await?;
                Ok(stored(self.store.store(request, held).await?))
            }
            Endpoint::Email(id) => Ok(("found", self.email(&access, head, id).await?)),
            Endpoint::Problem(name) => {
                Ok(("served", reply(200, "text/html; charset=utf-8", problem_pages::page(name)?)))
            }
            Endpoint::OpenApi => Ok(("served", reply(200, "application/json", openapi::DOCUMENT))),
            Endpoint::Health => {
                let reply = admin::health(&head.method, head.uri.path(), &self.readiness);
                Ok(("served", reply.ok_or(Problem::UnknownPath)?))
            }
        }
    }

    /// A signed webhook becomes what is to be stored.
    async fn webhook(
        &self,
        access: &Access,
        source: Source,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<(CommitRequest, HeldBody), Problem> {
        let held = receive(body, &self.bodies).await?;
        let arrival = Timestamp::now();
        let verified = access.verifiers.verify(source, &head.headers, held.bytes.clone(), arrival)?;
        require_json(&head.headers)?;
        let key = request_key::from_header(&head.headers)?;
        let (mut email, first) = source.parse(&verified, arrival)?;
        let fingerprint = request_key::fingerprint(verified.content());
        let request_key =
            request_key::of_delivery(verified.signed_id(), key, email.webhook_id.as_deref(), &fingerprint);
        // A signed id is the better permanent one: it is what the provider repeats.
        email.webhook_id = verified.signed_id().map(str::to_owned).or(email.webhook_id);
        let request = CommitRequest {
            source: source.name(),
            request_key,
            fingerprint,
            raw: held.bytes.clone(),
            email,
            first,
            traceparent: traceparent(&head.headers),
        };
        Ok((request, held))
    }

    /// A ready debt update becomes what is to be stored.
    async fn debt_update(
        &self,
        access: &Access,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<(CommitRequest, HeldBody), Problem> {
        access.check_token(&head.headers)?;
        require_json(&head.headers)?;
        let request_key = request_key::from_header(&head.headers)?.ok_or(Problem::KeyMissing)?;
        let held = receive(body, &self.bodies).await?;
        let (email, first) = debt_update::parse(&held.bytes, Timestamp::now())?;
        let request = CommitRequest {
            source: DEBT_UPDATE_SOURCE,
            request_key,
            fingerprint: request_key::fingerprint(&held.bytes),
            raw: held.bytes.clone(),
            email,
            first,
            traceparent: traceparent(&head.headers),
        };
        Ok((request, held))
    }

    /// Where a mail stands.
    async fn email(&self, access: &Access, head: &Parts, id: &str) -> Result<Reply, Problem> {
        access.check_token(&head.headers)?;
        let digits = id.bytes().all(|byte| byte.is_ascii_digit());
        let id: EmailId = id.parse().ok().filter(|_| digits).ok_or(Problem::UnknownEmail)?;
        Ok(reply(200, "application/json", self.store.status(id).await?.to_string()))
    }
}

/// The 200 after a commit.
fn stored(answer: Answer) -> (&'static str, Reply) {
    let (kind, email_id) = (answer.kind, answer.email_id);
    let body = json!({"status": kind.name(), "message": kind.message(), "email_id": email_id});
    let mut reply = reply(200, "application/json", body.to_string());
    if kind == AnswerKind::Duplicate {
        reply
            .headers_mut()
            .insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
    }
    (kind.name(), reply)
}

/// `application/json`, with or without parameters.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
}

/// The W3C trace context, if it is one of version 00.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths = [2, 32, 16, 2];
    let parts: Vec<_> = text.split('-').collect();
    let hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let shape = parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part));
    (shape && parts.first() == Some(&"00")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_kept() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            traceparent(&headers)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(good).as_deref(), Some(good));
        for bad in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
