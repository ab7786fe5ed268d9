//! `/v1/chat/completions` with a strict JSON schema, as OpenAI, vLLM, Ollama and llama.cpp speak it.
//!
//! Servers that do not know schemas ignore it without a word: an answer is text, and `answer` finds out what it is.

use super::{WRITTEN_TOKENS, answer::Answer, question};
use crate::extraction::Mail;
use serde_json::{Value, json};

/// The request. No sampling parameters: some hosted models refuse any but their own.
pub(super) fn request(model: &str, mail: &Mail<'_>) -> Value {
    json!({
        "model": model,
        "max_completion_tokens": WRITTEN_TOKENS,
        "messages": [
            { "role": "system", "content": question::INSTRUCTIONS },
            { "role": "user", "content": question::data(mail) },
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": { "name": question::NAME, "strict": true, "schema": question::schema() },
        },
    })
}

/// The model's answer, or why there is none; the text repeats nothing of the reply.
pub(super) fn answer(reply: &Value) -> Result<Answer, &'static str> {
    let choice = reply.pointer("/choices/0").ok_or("its reply has no answer")?;
    let message = choice.get("message").ok_or("its reply has no answer")?;
    if message.get("refusal").and_then(Value::as_str).is_some_and(|refusal| !refusal.is_empty()) {
        return Err("the model refused");
    }
    match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => return Err("the answer is cut off"),
        Some("content_filter") => return Err("a filter held the answer back"),
        _ => {}
    }
    match message.get("content") {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Answer::Text(text.clone())),
        _ => Err("its reply has no answer"),
    }
}

/// What the server counted.
pub(super) fn tokens(reply: &Value) -> Option<u64> {
    let count = |name: &str| reply.get("usage")?.get(name)?.as_u64();
    count("total_tokens").or_else(|| count("prompt_tokens")?.checked_add(count("completion_tokens")?))
}
