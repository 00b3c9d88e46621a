//! Spans for an OpenTelemetry collector: that it gets those of traced requests, whole, and that one that
//! does not answer costs no caller anything.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::harness::{DIGIT, PATIENCE, Server, binary_request, eventually, model_file};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A server that sends spans to this collector.
fn traced(collector: &TcpListener, more: &str) -> Server {
    let address = collector.local_addr().unwrap();
    let config = format!("[telemetry]\notlp_endpoint = \"http://{address}/otlp/\"\n{more}");
    let server = Server::builder().config(&config).start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    server
}

/// A call whose caller records it, or does not.
fn call(server: &Server, model: &str, flags: &str) -> u16 {
    let (mut headers, body) = binary_request("image", &DIGIT, &[0.0; 784]);
    headers.push(("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-{flags}")));
    headers.push(("x-request-id", format!("{model}-{flags}")));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.send("POST", &format!("/v2/models/{model}/infer"), &headers, &body).status
}

/// Takes one batch of spans as a collector does: the first line of the request, and the spans.
fn collect(collector: &TcpListener) -> (String, Vec<Value>) {
    let (stream, _) = collector.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(&stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    answer(&stream);
    let document: Value = serde_json::from_slice(&body).unwrap();
    let resource = &document["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "modelet");
    (first, resource["scopeSpans"][0]["spans"].as_array().unwrap().clone())
}

fn answer(mut stream: &TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.map_or(&Value::Null, |attribute| {
        attribute["value"].as_object().unwrap().values().next().unwrap()
    })
}

#[test]
fn a_collector_gets_the_spans_of_requests_that_are_recorded() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = traced(&collector, "");
    // What its caller does not record is not sent.
    assert_eq!([call(&server, "mnist", "00"), call(&server, "mnist", "01")], [200, 200]);
    assert_eq!(call(&server, "none", "01"), 404);
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let (first, batch) = collect(&collector);
        assert_eq!(first.trim(), "POST /otlp/v1/traces HTTP/1.1");
        spans.extend(batch);
    }
    let (answered, refused) = (&spans[0], &spans[1]);
    for span in [answered, refused] {
        assert_eq!(
            (&span["traceId"], &span["parentSpanId"]),
            (&TRACE.into(), &"00f067aa0ba902b7".into())
        );
        assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    }
    assert_eq!(attribute(answered, "modelet.request.id"), "mnist-01");
    assert_eq!(attribute(answered, "modelet.model"), "mnist");
    assert!(attribute(answered, "modelet.stage.compute_ms").as_f64().unwrap() > 0.0);
    let time = |key: &str| answered[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time("startTimeUnixNano") < time("endTimeUnixNano"));
    assert_eq!(answered.get("status"), None);
    assert_eq!(attribute(refused, "error.type"), "not_found");
    assert_eq!(refused["status"]["code"], 2);
}

#[test]
fn a_collector_that_does_not_answer_costs_spans_and_no_caller() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = traced(&collector, "queue_length = 2\ntimeout_ms = 60000\n");
    assert_eq!(call(&server, "mnist", "01"), 200);
    // It takes the connection and says nothing; two more spans wait, and the others are lost.
    let (silent, _) = collector.accept().unwrap();
    let lost = || server.refusals("telemetry.queue_length");
    eventually("a full queue", || {
        assert_eq!(call(&server, "mnist", "01"), 200);
        lost() > 0
    });
    drop(silent);
    // The next batch has what waited.
    assert_eq!(collect(&collector).1.len(), 2);
}

#[test]
fn a_collector_that_is_not_there_is_told_of_once() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = traced(&collector, "");
    drop(collector);
    for _ in 0..5 {
        assert_eq!(call(&server, "mnist", "01"), 200);
    }
    let told = || server.log().matches("no collector takes them").count();
    eventually("a line in the log", || told() > 0);
    assert_eq!(told(), 1);
}

#[test]
fn an_address_that_is_none_is_refused_before_anything_starts() {
    let config = "[telemetry]\notlp_endpoint = \"https://collector:4318\"\n";
    let Err(said) = Server::builder().config(config).try_start() else { panic!("it started") };
    assert!(said.contains("telemetry.otlp_endpoint"), "{said}");
}
