//! A tiny HTTP/1 server for tests: it answers from a list and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use serde_json::Value;

/// What the server was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Method and path, such as `GET /healthz`.
    pub(crate) line: String,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the server answers.
pub(crate) struct Told {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Whether to answer, and close, before the request's body is read.
    early: bool,
}

impl Told {
    pub(crate) fn json(status: u16, document: &Value) -> Self {
        Self::bytes(status, document.to_string().into_bytes())
    }

    pub(crate) fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: String::new(), body, early: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn early(mut self) -> Self {
        self.early = true;
        self
    }
}

/// A server that answers one connection after the other, one request each.
pub(crate) struct TestServer {
    pub(crate) url: String,
    thread: JoinHandle<Vec<Asked>>,
}

impl TestServer {
    pub(crate) fn answering(answers: Vec<Told>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let serve = |told| serve(listener.accept().unwrap().0, &told);
            answers.into_iter().map(serve).collect()
        });
        Self { url, thread }
    }

    /// What was asked, once every answer was given.
    pub(crate) fn asked(self) -> Vec<Asked> {
        self.thread.join().unwrap()
    }
}

fn serve(mut stream: TcpStream, told: &Told) -> Asked {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut asked = Asked::default();
    for (place, line) in reader.by_ref().lines().map(Result::unwrap).enumerate() {
        if place == 0 {
            asked.line = line.strip_suffix(" HTTP/1.1").unwrap().to_owned();
        } else if let Some((name, value)) = line.split_once(": ") {
            asked.headers.push((name.to_lowercase(), value.to_owned()));
        } else {
            break;
        }
    }
    if !told.early {
        if asked.header("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        asked.body = vec![0; length];
        reader.read_exact(&mut asked.body).unwrap();
    }
    let Told { status, headers, body, .. } = told;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    asked
}
