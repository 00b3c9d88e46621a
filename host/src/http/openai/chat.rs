//! Chat completions.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::generation::{self, Form};
use super::{Context, refuse, sampling};
use crate::error::Error;
use crate::http::fields::{Fields, parsed, wrong};
use crate::http::route::Called;
use crate::http::stream::Request;
use crate::http::task::{self, Prompt};

pub(super) fn decode(
    called: Called,
    model: String,
    fields: &Fields,
    context: &Context<'_>,
) -> Result<Request, Error> {
    sampling::refuse_the_rest(fields)?;
    refuse_tools(fields)?;
    let prompt = Prompt::Messages(messages(fields)?);
    let signature = &called.version.record.signature;
    let inputs = task::generation(signature, prompt, sampling::parameters(fields)?)?;
    let answer = generation::answer(Chat, &called, model, fields, context)?;
    Ok(Request { called, inputs, answer })
}

fn refuse_tools(fields: &Fields) -> Result<(), Error> {
    let has_tools = fields.get::<Vec<Value>>("tools")?.is_some_and(|tools| !tools.is_empty());
    let may_use = fields.raw("tool_choice") != Some("\"none\"");
    refuse("tools", has_tools && may_use, "tools are not called")?;
    let format = fields.get::<Value>("response_format")?;
    let is_other =
        format.is_some_and(|format| format.get("type").is_none_or(|kind| kind != "text"));
    refuse("response_format", is_other, "answers are text: no other format is kept to")
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    role: Option<String>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

/// The messages as a model gets them: roles and texts.
fn messages(fields: &Fields) -> Result<Value, Error> {
    const MESSAGES: &str = "messages";
    let raw = fields.raw(MESSAGES).ok_or_else(|| wrong(MESSAGES, "\"messages\" is missing"))?;
    let given: Vec<Message<'_>> = parsed(MESSAGES, raw)?;
    if given.is_empty() {
        return Err(wrong(MESSAGES, "there is no message"));
    }
    let messages = given.into_iter().enumerate().map(|(index, message)| {
        let place = |field: &str| format!("{MESSAGES}[{index}].{field}");
        let role = match message.role.as_deref() {
            // The newer name for what models were trained to call the other.
            Some("developer" | "system") => "system",
            Some("user") => "user",
            Some("assistant") => "assistant",
            Some("tool" | "function") => "tool",
            _ => {
                let roles = "developer, system, user, assistant or tool";
                return Err(wrong(place("role"), format!("the role is none of {roles}")));
            }
        };
        let content = content(&place("content"), message.content.map(RawValue::get))?;
        Ok(json!({ "role": role, "content": content }))
    });
    messages.collect()
}

/// The text of a message: one text, or the texts of its parts.
fn content(place: &str, raw: Option<&str>) -> Result<String, Error> {
    let Some(raw) = raw.filter(|raw| *raw != "null") else { return Ok(String::new()) };
    if raw.starts_with('"') {
        return parsed(place, raw);
    }
    let parts: Vec<Part> = parsed(place, raw)?;
    let texts = parts.into_iter().map(|part| match (part.kind.as_str(), part.text) {
        ("text", Some(text)) => Ok(text),
        _ => Err(wrong(place, "a part is no text, and nothing else is taken")),
    });
    texts.collect()
}

/// How chat completions are written.
#[derive(Debug, Clone, Copy)]
struct Chat;

impl Form for Chat {
    const PREFIX: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const PART: &'static str = "chat.completion.chunk";

    fn whole(self, text: &str) -> Value {
        json!({ "message": { "role": "assistant", "content": text, "refusal": null } })
    }

    fn part(self, text: &str, is_first: bool) -> Value {
        match is_first {
            true => json!({ "delta": { "role": "assistant", "content": text } }),
            false => json!({ "delta": { "content": text } }),
        }
    }

    fn end(self) -> Value {
        json!({ "delta": {} })
    }
}
