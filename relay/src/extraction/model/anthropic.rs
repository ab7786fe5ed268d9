//! `/v1/messages` with one tool that the model has to use: its input is the answer.

use super::{WRITTEN_TOKENS, answer::Answer, question};
use crate::extraction::Mail;
use serde_json::{Value, json};

/// The request.
pub(super) fn request(model: &str, mail: &Mail<'_>) -> Value {
    json!({
        "model": model,
        "max_tokens": WRITTEN_TOKENS,
        "system": question::INSTRUCTIONS,
        "messages": [{ "role": "user", "content": question::data(mail) }],
        "tools": [{
            "name": question::NAME,
            "description": "Records what the e-mail says.",
            "input_schema": question::schema(),
        }],
        "tool_choice": { "type": "tool", "name": question::NAME },
    })
}

/// The model's answer, or why there is none; the text repeats nothing of the reply.
pub(super) fn answer(reply: &Value) -> Result<Answer, &'static str> {
    match reply.get("stop_reason").and_then(Value::as_str) {
        Some("max_tokens" | "model_context_window_exceeded") => return Err("the answer is cut off"),
        Some("refusal") => return Err("the model refused"),
        _ => {}
    }
    let blocks = reply.get("content").and_then(Value::as_array).map_or([].as_slice(), Vec::as_slice);
    let of_kind = |kind: &'static str| {
        blocks.iter().filter(move |block| block.get("type").and_then(Value::as_str) == Some(kind))
    };
    let mut uses = of_kind("tool_use");
    match (uses.next(), uses.next()) {
        (Some(_), Some(_)) => Err("there is more than one answer"),
        (Some(only), None) => only.get("input").cloned().map(Answer::Object).ok_or("its reply has no answer"),
        // A server that ignores tools may have answered in words.
        (None, _) => {
            let text: Vec<&str> = of_kind("text").filter_map(|block| block.get("text")?.as_str()).collect();
            if text.is_empty() { Err("its reply has no answer") } else { Ok(Answer::Text(text.concat())) }
        }
    }
}

/// What the server counted; tokens that it had cached are tokens.
pub(super) fn tokens(reply: &Value) -> Option<u64> {
    let usage = reply.get("usage")?;
    let count = |name: &str| usage.get(name).and_then(Value::as_u64);
    let cached = ["cache_creation_input_tokens", "cache_read_input_tokens"].into_iter().filter_map(count);
    cached
        .fold(count("input_tokens")?.checked_add(count("output_tokens")?), |sum, more| sum?.checked_add(more))
}
