//! A server that speaks the models' protocols over real HTTP and answers what a test has written down, in that order.

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use relay::extraction::model::{ModelConfig, Provider};
use serde_json::{Value, json};
use shared::process::Secret;
use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

pub(crate) const KEY: &str = "sk-test-0123456789";
pub(crate) const MODEL: &str = "reader-1";

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Status, headers, body.
    Http(u16, Vec<(&'static str, String)>, String),
    /// The same, as soon as the semaphore has a permit.
    Held(Arc<Semaphore>, Box<Answer>),
    /// Reads the request and closes the connection.
    HangUp,
    /// Reads the request and says nothing.
    Silence,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<Asked>,
    open: usize,
    most_open: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelServer {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

impl ModelServer {
    pub(crate) async fn start() -> ModelServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = ModelServer { url, script: Arc::default() };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { server.serve(request).await }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    pub(crate) fn will(&self, answer: Answer) {
        self.script.lock().unwrap().answers.push_back(answer);
    }

    /// The requests since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }

    pub(crate) fn count(&self) -> usize {
        self.script.lock().unwrap().asked.len()
    }

    /// Most requests that were open at the same time.
    pub(crate) fn most_open(&self) -> usize {
        self.script.lock().unwrap().most_open
    }

    pub(crate) fn config(&self, provider: Provider) -> ModelConfig {
        ModelConfig {
            provider,
            url: self.url.parse().unwrap(),
            model: MODEL.into(),
            key: Some(Secret::from_str(KEY).unwrap()),
            timeout: Duration::from_secs(20),
            concurrency: 1,
            requests_per_minute: 0,
            daily_tokens: 0,
        }
    }

    /// An error ends the connection without an answer.
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let asked = Asked {
            path: format!("{} {}", head.method, head.uri),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            at: Instant::now(),
        };
        let answer = {
            let mut script = self.script.lock().unwrap();
            script.asked.push(asked);
            script.open += 1;
            script.most_open = script.most_open.max(script.open);
            script.answers.pop_front()
        };
        let answer = match answer {
            Some(Answer::Held(semaphore, answer)) => {
                semaphore.acquire().await.unwrap().forget();
                Some(*answer)
            }
            other => other,
        };
        self.script.lock().unwrap().open -= 1;
        match answer {
            Some(Answer::Http(status, headers, body)) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(Full::new(body.into())).unwrap())
            }
            Some(Answer::Silence) => std::future::pending().await,
            Some(Answer::HangUp | Answer::Held(_, _)) | None => Err(std::io::Error::other("hangs up")),
        }
    }
}

/// A chat completion of these words, of 1,000 tokens.
pub(crate) fn chat(content: &str) -> Answer {
    completion(json!({ "finish_reason": "stop", "message": { "role": "assistant", "content": content } }))
}

/// A chat completion with this choice, of 1,000 tokens.
pub(crate) fn completion(choice: Value) -> Answer {
    let usage = json!({ "prompt_tokens": 900, "completion_tokens": 100, "total_tokens": 1000 });
    let body = json!({ "id": "c-1", "object": "chat.completion", "choices": [choice], "usage": usage });
    Answer::Http(200, Vec::new(), body.to_string())
}

/// A message in which the tool is used with this input, of 1,000 tokens.
pub(crate) fn tool_use(input: Value) -> Answer {
    let used = json!({ "type": "tool_use", "id": "t-1", "name": "record_mail", "input": input });
    message("tool_use", json!([{ "type": "text", "text": "I record it." }, used]))
}

/// A message of this content, of 1,000 tokens.
pub(crate) fn message(stop_reason: &str, content: Value) -> Answer {
    let usage = json!({ "input_tokens": 700, "cache_read_input_tokens": 200, "output_tokens": 100 });
    let body = json!({ "id": "m-1", "type": "message", "role": "assistant", "content": content,
        "stop_reason": stop_reason, "usage": usage });
    Answer::Http(200, Vec::new(), body.to_string())
}

/// A failure as both kinds of server send it.
pub(crate) fn failure(status: u16, code: &str) -> Answer {
    let error = json!({ "type": code, "message": "Herr Adler schuldet 1.234,56 EUR", "param": null });
    Answer::Http(status, Vec::new(), json!({ "type": "error", "error": error }).to_string())
}
