//! `modelet chat`: a conversation, a line a message, whose answers are printed as they come.

use std::io::{self, BufRead, IsTerminal};

use serde_json::{Map, Value, json};

use crate::args::ChatArgs;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

pub(super) fn run(args: &ChatArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let stdin = io::stdin();
    let terminal = stdin.is_terminal();
    talk(args, client, (&mut stdin.lock(), terminal), out)
}

/// Answers line after line until there is no more.
fn talk(
    args: &ChatArgs,
    client: &Client,
    (input, terminal): (&mut dyn BufRead, bool),
    out: &Out,
) -> Result<(), Failure> {
    let mut messages: Vec<Value> =
        args.system.iter().map(|text| json!({ "role": "system", "content": text })).collect();
    loop {
        if terminal {
            out.ask("> ");
        }
        let mut line = String::new();
        let length = input.read_line(&mut line);
        if length.map_err(|error| anyhow::anyhow!("the message cannot be read: {error}"))? == 0 {
            break;
        }
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        messages.push(json!({ "role": "user", "content": text }));
        match answer(args, client, &messages, out) {
            Ok(answer) => messages.push(answer),
            Err(failure) if terminal => {
                out.failure(&failure);
                messages.pop();
            }
            Err(failure) => return Err(failure),
        }
    }
    if terminal {
        // The prompt has no answer: what the shell says begins below it.
        out.ask("\n");
    }
    out.document(&json!({ "model": args.target.to_string(), "messages": messages }))
}

/// Asks for the message that comes next, prints it as it comes, and gives it.
fn answer(
    args: &ChatArgs,
    client: &Client,
    messages: &[Value],
    out: &Out,
) -> Result<Value, Failure> {
    let mut said = String::new();
    let printed = parts(client.chat(&request(args, messages))?, &mut said, out);
    // Also behind an answer that broke off, so that the reason has its own line.
    out.part("\n")?;
    let reason = printed?;
    if reason == "length" {
        out.note("(cut off: the most tokens are reached; --max-tokens allows more)");
    }
    Ok(json!({ "role": "assistant", "content": said }))
}

/// Prints the parts of an answer, collects them, and gives the reason why it ended.
fn parts(
    events: impl Iterator<Item = Result<Value, Failure>>,
    said: &mut String,
    out: &Out,
) -> Result<String, Failure> {
    let mut reason = None;
    for event in events {
        let event = event?;
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str);
        if let Some(part) = text("/choices/0/delta/content") {
            said.push_str(part);
            out.part(part)?;
        }
        if let Some(ended) = text("/choices/0/finish_reason") {
            reason = Some(ended.to_owned());
        }
    }
    reason.ok_or_else(|| {
        Failure::new(Exit::Unreachable, "the server broke off in the middle of an answer")
            .remedy("look at the server's log")
    })
}

/// The request for the message that comes behind `messages`.
fn request(args: &ChatArgs, messages: &[Value]) -> Value {
    let chosen = [
        ("temperature", args.temperature.map(Value::from)),
        ("max_tokens", args.max_tokens.map(Value::from)),
        ("seed", args.seed.map(Value::from)),
    ];
    let mut request: Map<String, Value> =
        chosen.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    request.insert("model".to_owned(), args.target.to_string().into());
    request.insert("messages".to_owned(), messages.into());
    request.insert("stream".to_owned(), true.into());
    Value::Object(request)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::out::tests::captured;
    use crate::test_server::{Asked, TestServer, Told};

    /// A stream of these texts, which ends for this reason, if for any.
    fn stream(parts: &[&str], reason: Option<&str>) -> Told {
        let part = |text: &&str| json!({ "choices": [{ "delta": { "content": text } }] });
        let end =
            reason.map(|reason| json!({ "choices": [{ "delta": {}, "finish_reason": reason }] }));
        let events = parts.iter().map(part).chain(end);
        let mut body: String = events.map(|event| format!("data: {event}\n\n")).collect();
        body.push_str("data: [DONE]\n\n");
        Told::bytes(200, body.into_bytes())
    }

    struct Talk {
        result: Result<(), Failure>,
        stdout: String,
        stderr: String,
        asked: Vec<Asked>,
    }

    /// What comes of typing lines.
    fn talked(line: &str, typed: &str, terminal: bool, answers: Vec<Told>) -> Talk {
        let server = TestServer::answering(answers);
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Chat(args) = cli.command else { panic!("another command") };
        let (out, stdout, stderr) = captured(cli.global.json);
        let client = Client::new(&server.url).unwrap();
        let result = talk(&args, &client, (&mut typed.as_bytes(), terminal), &out);
        let (stdout, stderr) = (stdout.text(), stderr.text());
        Talk { result, stdout, stderr, asked: server.asked() }
    }

    fn sent(asked: &Asked) -> Value {
        serde_json::from_slice(&asked.body).unwrap()
    }

    #[test]
    fn what_was_said_goes_along_with_every_message() {
        let line = "modelet chat m@2 --system Brief. --temperature 0 --max-tokens 5 --seed -1";
        let answers = vec![stream(&["Hel", "lo"], Some("stop")), stream(&["Bye"], Some("length"))];
        let talk = talked(line, "Hi\n\n  Go on \n", false, answers);
        talk.result.unwrap();
        assert_eq!(talk.stdout, "Hello\nBye\n");
        assert!(talk.stderr.contains("--max-tokens"), "{}", talk.stderr);
        assert_eq!(talk.asked[0].line, "POST /v1/chat/completions");
        let said = |role: &str, content: &str| json!({ "role": role, "content": content });
        let first = vec![said("system", "Brief."), said("user", "Hi")];
        let wanted = json!({ "model": "m@2", "messages": first, "stream": true,
            "temperature": 0.0, "max_tokens": 5, "seed": -1 });
        assert_eq!(sent(&talk.asked[0]), wanted);
        let second = [first, vec![said("assistant", "Hello"), said("user", "Go on")]].concat();
        assert_eq!(sent(&talk.asked[1])["messages"], Value::from(second));
    }

    #[test]
    fn with_json_the_conversation_is_one_document() {
        let answers = vec![stream(&["a"], Some("stop")), stream(&["b"], Some("stop"))];
        let talk = talked("modelet chat --json", "1\n2\n", false, answers);
        let document: Value = serde_json::from_str(&talk.stdout).unwrap();
        let said = document["messages"].as_array().unwrap().iter();
        let said: Vec<_> = said.map(|message| message["content"].as_str().unwrap()).collect();
        assert_eq!(
            (said.as_slice(), &document["model"]),
            (&["1", "a", "2", "b"][..], &json!("chat"))
        );
    }

    #[test]
    fn a_model_moves_no_cursor() {
        let talk = talked("modelet chat", "1\n", false, vec![stream(&["\u{1b}[2J"], Some("stop"))]);
        assert!(!talk.stdout.contains('\u{1b}') && talk.stdout.contains("[2J"), "{}", talk.stdout);
    }

    #[test]
    fn a_refused_message_is_dropped_on_a_terminal_and_ends_a_pipe() {
        let refused = || {
            let error =
                json!({ "message": "too long", "code": "bad_request", "param": "messages" });
            Told::json(400, &json!({ "error": error }))
        };
        let failure = talked("modelet chat", "1\n2\n", false, vec![refused()]).result.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        assert!(failure.to_string().contains("too long"), "{failure}");
        let answers = vec![refused(), stream(&["b"], Some("stop"))];
        let talk = talked("modelet chat", "1\n2\n", true, answers);
        talk.result.unwrap();
        assert!(talk.stderr.contains("too long") && talk.stderr.contains("> "), "{}", talk.stderr);
        assert_eq!(sent(&talk.asked[1])["messages"], json!([{ "role": "user", "content": "2" }]));
    }

    #[test]
    fn an_answer_that_breaks_off_or_fails_is_told() {
        let broken = talked("modelet chat", "1\n", false, vec![stream(&["a"], None)]);
        assert_eq!(broken.result.unwrap_err().exit(), Exit::Unreachable);
        assert_eq!(broken.stdout, "a\n");
        let event = json!({ "error": { "message": "too late", "code": "deadline" } });
        let body = format!("data: {event}\n\n").into_bytes();
        let failed = talked("modelet chat", "1\n", false, vec![Told::bytes(200, body)]);
        let failure = failed.result.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unavailable);
        assert!(failure.to_string().contains("too late"), "{failure}");
    }
}
