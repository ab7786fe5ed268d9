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
    request_body::{BodyLimits, HeldBody, Readers, discard, receive},
    request_key,
    request_trace::{REQUEST_ID, RequestTrace},
    source::Source,
    store::Store,
    telemetry::{self, Ended},
};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::Body,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use jiff::Timestamp;
use serde_json::json;
use shared::{
    admin::{self, Readiness},
    http::{Reply, RequestBody, reply},
    message::{EmailId, Operation},
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

/// How a request came out well.
struct Answered {
    outcome: &'static str,
    reply: Reply,
    /// The mail that it stored or has stored before, and what is done with that first.
    stored: Option<(EmailId, Operation)>,
}

/// Answers a request, whatever it is.
pub async fn handle(app: Arc<App>, request: Request<RequestBody>) -> Reply {
    let started = Instant::now();
    let (head, mut body) = request.into_parts();
    let trace = RequestTrace::of(&head.headers);
    let endpoint = Endpoint::of(head.uri.path());
    let source = endpoint.as_ref().map_or("none", |endpoint| endpoint.label());
    let answered = match endpoint {
        Ok(endpoint) => app.answer(endpoint, &head, &mut body, &trace).await,
        Err(problem) => Err(problem),
    };
    let (outcome, mut reply, stored) = match answered {
        Ok(Answered { outcome, reply, stored }) => (outcome, reply, stored),
        Err(problem) => (problem.name(), problem.reply(&trace.request_id), None),
    };
    if let Ok(id) = HeaderValue::from_str(&trace.request_id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    // An early answer would be lost in a reset while the client still writes. Who waits for a 100 Continue writes nothing.
    let late = reply.status() == StatusCode::REQUEST_TIMEOUT || head.headers.contains_key(header::EXPECT);
    if !body.is_end_stream() && !late {
        discard(&mut body).await;
    }
    let status = reply.status().as_u16();
    telemetry::request(&Ended { source, outcome, status, stored, trace: &trace, took: started.elapsed() });
    reply
}

impl App {
    /// Everything switched on that the configuration switches on.
    #[must_use]
    pub fn new(config: &Config, access: CurrentAccess, readiness: Readiness, store: Arc<Store>) -> Arc<App> {
        let budget_bytes = config.limits.body_budget_bytes;
        let bodies = BodyLimits {
            bytes: config.limits.body_bytes,
            time: config.limits.body_timeout,
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            readers: Readers::default(),
        };
        Arc::new(App { access, bodies, store, readiness })
    }

    /// Reads what is only looked at when somebody asks for the metrics.
    pub fn measure(&self) {
        telemetry::measure(&self.readiness, self.store.depth(), self.bodies.held());
        self.store.database().measure();
    }

    async fn answer(
        &self,
        endpoint: Endpoint<'_>,
        head: &Parts,
        body: &mut RequestBody,
        trace: &RequestTrace,
    ) -> Result<Answered, Problem> {
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
                let (request, held) = self.webhook(&access, source, head, body, trace).await?;
                self.store(request, held).await
            }
            Endpoint::DebtUpdates => {
                let (request, held) = self.debt_update(&access, head, body, trace).await?;
                self.store(request, held).await
            }
            Endpoint::Email(id) => Ok(Answered::other("found", self.email(&access, head, id).await?)),
            Endpoint::Problem(name) => {
                let page = problem_pages::page(name)?;
                Ok(Answered::other("served", reply(200, "text/html; charset=utf-8", page)))
            }
            Endpoint::OpenApi => {
                Ok(Answered::other("served", reply(200, "application/json", openapi::DOCUMENT)))
            }
            Endpoint::Health => {
                let reply = admin::health(&head.method, head.uri.path(), &self.readiness);
                Ok(Answered::other("served", reply.ok_or(Problem::UnknownPath)?))
            }
        }
    }

    async fn store(&self, request: CommitRequest, held: HeldBody) -> Result<Answered, Problem> {
        let operation = request.first.operation();
        Ok(stored(self.store.store(request, held).await?, operation))
    }

    /// A signed webhook becomes what is to be stored.
    async fn webhook(
        &self,
        access: &Access,
        source: Source,
        head: &Parts,
        body: &mut RequestBody,
        trace: &RequestTrace,
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
            traceparent: trace.traceparent,
        };
        Ok((request, held))
    }

    /// A ready debt update becomes what is to be stored.
    async fn debt_update(
        &self,
        access: &Access,
        head: &Parts,
        body: &mut RequestBody,
        trace: &RequestTrace,
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
            traceparent: trace.traceparent,
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

impl Answered {
    fn other(outcome: &'static str, reply: Reply) -> Answered {
        Answered { outcome, reply, stored: None }
    }
}

/// The 200 after a commit.
fn stored(answer: Answer, operation: Operation) -> Answered {
    let (kind, email_id) = (answer.kind, answer.email_id);
    let body = json!({"status": kind.name(), "message": kind.message(), "email_id": email_id});
    let mut reply = reply(200, "application/json", body.to_string());
    if kind == AnswerKind::Duplicate {
        reply
            .headers_mut()
            .insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
    }
    Answered { outcome: kind.name(), reply, stored: Some((email_id, operation)) }
}

/// `application/json`, with or without parameters.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
}
