//! Sound to text.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::refuse;
use crate::error::Error;
use crate::http::fields::{Fields, wrong};
use crate::http::route::Called;
use crate::http::stream::{Answer, Request};
use crate::http::task::{self, Segment, Transcription};

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    Verbose,
    /// Subtitles, with their numbers.
    Srt,
    /// Subtitles of the web.
    Vtt,
}

pub(super) fn decode(called: Called, fields: &Fields) -> Result<Request, Error> {
    let file = fields.file().ok_or_else(|| wrong("file", "\"file\" is missing"))?;
    let format = format(fields)?;
    let streams = fields.get::<String>("stream")?.is_some_and(|stream| stream == "true");
    refuse("stream", streams, "transcripts are not streamed")?;
    const WORDS: &str = "timestamp_granularities[]";
    let words = fields.get::<String>(WORDS)?.is_some_and(|kind| kind != "segment");
    refuse(WORDS, words, "times are those of segments, and not of words")?;
    let language = fields.get::<String>("language")?.filter(|language| !language.is_empty());
    let spoken = language.clone();
    let parameters = parameters(fields, language)?;
    let inputs = task::transcription(&called.version.record.signature, file, parameters)?;
    let encode = Box::new(move |outputs: &[_]| {
        let transcription = Transcription::of(outputs)?;
        Ok(written(&transcription, format, spoken.as_deref()).into_bytes())
    });
    let answer = match format {
        Format::Json | Format::Verbose => Answer::Whole(encode),
        Format::Text | Format::Srt => Answer::Text("text/plain; charset=utf-8", encode),
        Format::Vtt => Answer::Text("text/vtt; charset=utf-8", encode),
    };
    Ok(Request { called, inputs, answer })
}

fn format(fields: &Fields) -> Result<Format, Error> {
    const FORMAT: &str = "response_format";
    match fields.get::<String>(FORMAT)?.as_deref() {
        None | Some("json") => Ok(Format::Json),
        Some("text") => Ok(Format::Text),
        Some("verbose_json") => Ok(Format::Verbose),
        Some("srt") => Ok(Format::Srt),
        Some("vtt") => Ok(Format::Vtt),
        Some(_) => Err(wrong(FORMAT, "the format is none of json, text, verbose_json, srt, vtt")),
    }
}

/// What the caller has set of what a model may be told.
fn parameters(fields: &Fields, language: Option<String>) -> Result<Map<String, Value>, Error> {
    const TEMPERATURE: &str = "temperature";
    let temperature = match fields.get::<String>(TEMPERATURE)? {
        None => None,
        Some(text) => {
            let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            let wrong = || wrong(TEMPERATURE, "the temperature is no number from 0 to 1");
            Some(number.ok_or_else(wrong)?)
        }
    };
    let values = [
        ("language", language.map(Value::from)),
        ("prompt", fields.get::<String>("prompt")?.map(Value::from)),
        (TEMPERATURE, temperature.map(Value::from)),
    ];
    Ok(values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn written(transcription: &Transcription, format: Format, language: Option<&str>) -> String {
    let Transcription { text, duration, segments } = transcription;
    match format {
        Format::Json => json!({ "text": text }).to_string(),
        Format::Text => format!("{text}\n"),
        Format::Verbose => verbose(transcription, language).to_string(),
        Format::Srt => subtitles(&whole(text, *duration, segments), ',', true),
        Format::Vtt => {
            format!("WEBVTT\n\n{}", subtitles(&whole(text, *duration, segments), '.', false))
        }
    }
}

fn verbose(transcription: &Transcription, language: Option<&str>) -> Value {
    let Transcription { text, duration, segments } = transcription;
    let segments = segments.iter().enumerate().map(|(id, segment)| {
        let Segment { start, end, text } = segment;
        json!({
            "id": id, "seek": 0, "start": start, "end": end, "text": text, "tokens": [],
            "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 0.0, "no_speech_prob": 0.0,
        })
    });
    json!({
        "task": "transcribe",
        "language": language.unwrap_or("unknown"),
        "duration": duration,
        "text": text,
        "segments": segments.collect::<Vec<_>>(),
    })
}

/// The segments, or all of the text as one where the model tells of none.
fn whole(text: &str, duration: f32, segments: &[Segment]) -> Vec<Segment> {
    if segments.is_empty() && !text.is_empty() {
        return vec![Segment { start: 0.0, end: duration, text: text.to_owned() }];
    }
    segments.to_vec()
}

fn subtitles(segments: &[Segment], point: char, numbered: bool) -> String {
    let mut written = String::new();
    for (place, segment) in segments.iter().enumerate() {
        if numbered {
            // Writing to a string cannot fail.
            let _ = writeln!(written, "{}", place + 1);
        }
        let (start, end) = (time(segment.start, point), time(segment.end, point));
        let _ = writeln!(written, "{start} --> {end}\n{}\n", segment.text.replace('\n', " "));
    }
    written
}

/// Hours, minutes, seconds and milliseconds.
fn time(seconds: f32, point: char) -> String {
    let milliseconds = (f64::from(seconds.max(0.0)) * 1000.0).round() as u64;
    let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("{hours:02}:{:02}:{:02}{point}{milliseconds:03}", minutes % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcription() -> Transcription {
        let segment = |start, end, text: &str| Segment { start, end, text: text.to_owned() };
        let segments = vec![segment(0.0, 1.5, "One."), segment(3661.25, 3662.0, "Two.")];
        Transcription { text: "One. Two.".to_owned(), duration: 3662.0, segments }
    }

    #[test]
    fn subtitles_have_their_times() {
        let srt = "1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n\
            2\n01:01:01,250 --> 01:01:02,000\nTwo.\n\n";
        assert_eq!(written(&transcription(), Format::Srt, None), srt);
        let alone = Transcription { segments: Vec::new(), ..transcription() };
        let vtt = "WEBVTT\n\n00:00:00.000 --> 01:01:02.000\nOne. Two.\n\n";
        assert_eq!(written(&alone, Format::Vtt, None), vtt);
    }

    #[test]
    fn what_models_cannot_do_is_refused_with_its_field() {
        let fields = |name: &str, text: &str| {
            Fields::of_form([(name.to_owned(), text.to_owned())], None).unwrap()
        };
        let place = |error: Error| error.body().place.unwrap().to_owned();
        for text in ["xml", ""] {
            assert_eq!(
                place(format(&fields("response_format", text)).unwrap_err()),
                "response_format"
            );
        }
        for text in ["2", "-0.1", "warm", "NaN"] {
            let error = parameters(&fields("temperature", text), None).unwrap_err();
            assert_eq!(place(error), "temperature");
        }
        let told = parameters(&fields("temperature", "0.5"), Some("en".to_owned())).unwrap();
        assert_eq!(Value::Object(told), json!({ "language": "en", "temperature": 0.5 }));
    }
}
