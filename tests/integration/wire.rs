//! HTTP as it is on the wire: for clients that send what no library would, and for many at once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{PATIENCE, Server, binary_request};

/// A picture of MNIST.
pub(crate) const DIGIT: [usize; 4] = [1, 1, 28, 28];

/// The bytes of a POST with one FP32 tensor of zeros, and the answer asked for in binary.
pub(crate) fn infer_bytes(path: &str, shape: &[usize]) -> Vec<u8> {
    let zeros = vec![0.0; shape.iter().product()];
    let (headers, body) = binary_request("image", shape, &zeros);
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    bytes.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut bytes = bytes.into_bytes();
    bytes.extend(body);
    bytes
}

/// A connection on which `bytes` have been sent, or as many of them as the server took.
pub(crate) fn sent(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may answer and close before all of it is written.
    let _ = stream.write_all(bytes);
    stream
}

/// All that comes on a connection until the server closes it.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that was closed with bytes of ours unread ends with an error.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the server has closed a connection, after waiting for it.
#[track_caller]
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}

/// What an answer said, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// Whether it has the header Retry-After.
    pub(crate) retry_after: bool,
}

/// A kept-alive connection of a client that does little itself, so that many fit beside a server.
pub(crate) struct Client {
    stream: tokio::net::TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> std::io::Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Said> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (head, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                break (head, end + 4 + length);
            }
        };
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Said { status, retry_after: head.contains("\r\nretry-after: ") })
    }
}

/// Frames of HTTP/2, as few as an attack needs.
pub(crate) mod http2 {
    /// What a client sends first: the preface, and settings of no content.
    pub(crate) const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A request without a body: GET or POST of `path`.
    pub(crate) fn request(stream: u32, method: &str, path: &str, ends: bool) -> Vec<u8> {
        // Entries of HPACK's static table: 2 is GET, 3 is POST, 6 is the scheme http; 1 and 4 are the
        // names :authority and :path with a value of our own.
        let mut block = vec![if method == "GET" { 0x82 } else { 0x83 }, 0x86];
        for (name, value) in [(0x01, "localhost"), (0x04, path)] {
            block.extend([name, value.len() as u8]);
            block.extend(value.as_bytes());
        }
        frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, &block)
    }

    /// The end of a stream before its answer.
    pub(crate) fn reset(stream: u32) -> Vec<u8> {
        const CANCEL: [u8; 4] = [0, 0, 0, 8];
        frame(RST_STREAM, 0, stream, &CANCEL)
    }
}
