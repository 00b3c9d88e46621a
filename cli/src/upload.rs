//! How a file comes to the server: not at all if it is there, by digest and in pieces if it is large,
//! as a part of the publication otherwise.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use modelet_host::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::body::{self, Body, Doing, OpenFile, unreadable};
use crate::client::{BlobState, Client, Sent};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// Files from here on are looked for on the server before they are sent; smaller ones take no longer to
/// send than to ask for.
const ASK_FROM_BYTES: u64 = 1 << 20;
/// Files from here on are sent by digest, so that a connection that drops costs no second upload; over
/// a megabyte a second this takes a minute.
const BLOB_FROM_BYTES: u64 = 64 << 20;
/// Tries in a row that bring nothing further; with the waits between them, half a minute in which a
/// server restarts.
const TRIES: u32 = 7;
/// The wait after the first of them; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Bytes read at a time while a file is hashed.
const READ_BYTES: usize = 1 << 20;

/// How a file goes into the publication.
pub(crate) enum Staged {
    /// As a part of it.
    Part(OpenFile),
    /// By the digest of a blob that the server has.
    Blob(Digest),
}

/// Makes a file ready to be published.
///
/// # Errors
/// When it cannot be read, or the server takes no more of it.
pub(crate) fn stage(client: &Client, path: &Path, out: &Out) -> Result<Staged, Failure> {
    let file = body::open(path)?;
    let length = file.length();
    if length < ASK_FROM_BYTES {
        return Ok(Staged::Part(file));
    }
    let digest = digest(path)?;
    match client.blob(&digest)? {
        BlobState::Whole => return Ok(Staged::Blob(digest)),
        BlobState::Part(offset) if length >= BLOB_FROM_BYTES => {
            if offset > 0 {
                out.note(&format!("going on with '{}' at byte {offset}", path.display()));
            }
            send(client, path, &digest, offset)?;
            return Ok(Staged::Blob(digest));
        }
        BlobState::Part(_) | BlobState::Unsupported => {}
    }
    Ok(Staged::Part(file))
}

/// Sends a blob from `offset` on until the server has all of it.
fn send(client: &Client, path: &Path, digest: &Digest, offset: u64) -> Result<(), Failure> {
    let mut at = offset;
    // An earlier try may have left bytes that are not the file's; they are dropped at the end.
    let mut may_begin_anew = offset > 0;
    let mut tries = 0;
    loop {
        let sent = send_once(client, path, digest, at);
        if sent.as_ref().is_err_and(|failure| !is_worth_another(failure)) && !may_begin_anew {
            return sent.map(drop);
        }
        let further = match look(client, digest, &mut tries)? {
            BlobState::Whole => return Ok(()),
            BlobState::Unsupported => 0,
            BlobState::Part(further) => further,
        };
        match sent {
            Err(failure) if !is_worth_another(&failure) => {
                if further > 0 {
                    return Err(failure);
                }
                may_begin_anew = false;
            }
            Err(failure) if further <= at => pause(&mut tries, failure)?,
            Ok(Sent::NotNow) if further <= at => pause(&mut tries, busy(digest))?,
            _ => tries = 0,
        }
        at = further;
    }
}

/// Asks what the server has, and again if it does not answer.
fn look(client: &Client, digest: &Digest, tries: &mut u32) -> Result<BlobState, Failure> {
    loop {
        match client.blob(digest) {
            Err(failure) if is_worth_another(&failure) => pause(tries, failure)?,
            answered => return answered,
        }
    }
}

fn send_once(client: &Client, path: &Path, digest: &Digest, at: u64) -> Result<Sent, Failure> {
    let file = body::open(path)?;
    let length = file.length();
    let mut body = Body::default();
    body.push_file(file.skip(at)?);
    client.send_blob(digest, length, at, body)
}

/// Whether the same may succeed a moment later.
fn is_worth_another(failure: &Failure) -> bool {
    matches!(failure.exit(), Exit::Unreachable | Exit::Unavailable)
}

/// Waits before another try, for longer each time; gives `failure` back after the last one.
#[allow(clippy::disallowed_methods, reason = "nothing tells when a server comes back")]
fn pause(tries: &mut u32, failure: Failure) -> Result<(), Failure> {
    *tries += 1;
    if *tries >= TRIES {
        return Err(failure);
    }
    std::thread::sleep(FIRST_WAIT * 2_u32.pow(*tries - 1));
    Ok(())
}

fn busy(digest: &Digest) -> Failure {
    Failure::new(Exit::Conflict, format!("another request sends blob {digest} just now"))
        .remedy("wait for it to end, then try again")
}

/// The digest of a file's bytes.
fn digest(path: &Path) -> Result<Digest, Failure> {
    let mut body = Body::default();
    body.push_file(body::open(path)?);
    body.show_progress(Doing::Hashing);
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        let count = body.read(&mut buffer).map_err(|error| unreadable(path, &error))?;
        if count == 0 {
            return Ok(Digest::from_hasher(hasher));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_server::{TestServer, Told};

    fn file(bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        (folder, path)
    }

    fn missing(offset: u64) -> Told {
        Told::bytes(404, Vec::new()).header("Upload-Offset", &offset.to_string())
    }

    #[test]
    fn what_the_server_has_is_not_sent_and_small_files_are_not_asked_for() {
        let (_folder, path) = file(ASK_FROM_BYTES);
        let server = TestServer::answering(vec![Told::bytes(200, Vec::new())]);
        let client = Client::new(&server.url).unwrap();
        let staged = stage(&client, &path, &Out::standard(false)).unwrap();
        let Staged::Blob(digest) = staged else { panic!("it would be sent") };
        assert_eq!(server.asked()[0].line, format!("HEAD /api/v1/blobs/{digest}"));
        let (_folder, path) = file(ASK_FROM_BYTES - 1);
        let staged =
            stage(&Client::new("http://127.0.0.1:1").unwrap(), &path, &Out::standard(false));
        assert!(matches!(staged, Ok(Staged::Part(_))));
    }

    #[test]
    fn a_server_that_takes_no_blobs_gets_parts() {
        let (_folder, path) = file(BLOB_FROM_BYTES);
        let server = TestServer::answering(vec![Told::bytes(404, Vec::new())]);
        let client = Client::new(&server.url).unwrap();
        let staged = stage(&client, &path, &Out::standard(false)).unwrap();
        assert!(matches!(staged, Staged::Part(file) if file.length() == BLOB_FROM_BYTES));
        server.asked();
    }

    #[test]
    fn an_upload_goes_on_after_a_refusal_that_passes_and_where_the_server_says() {
        let (_folder, path) = file(BLOB_FROM_BYTES);
        let busy = json!({ "error": "busy", "kind": "overloaded" });
        let server = TestServer::answering(vec![
            missing(BLOB_FROM_BYTES - 3),
            Told::json(503, &busy),
            missing(BLOB_FROM_BYTES - 2),
            Told::json(409, &json!({ "error": "elsewhere", "kind": "conflict" })),
            missing(BLOB_FROM_BYTES - 1),
            Told::json(201, &json!({})),
            Told::bytes(200, Vec::new()),
        ]);
        let client = Client::new(&server.url).unwrap();
        let staged = stage(&client, &path, &Out::standard(false)).unwrap();
        assert!(matches!(staged, Staged::Blob(_)));
        let asked = server.asked();
        let sent: Vec<_> = asked.iter().filter(|asked| asked.line.starts_with("PATCH")).collect();
        let bytes: Vec<_> = sent.iter().map(|asked| asked.body.len()).collect();
        assert_eq!(bytes, [3, 2, 1]);
        let length = BLOB_FROM_BYTES.to_string();
        assert!(sent.iter().all(|asked| asked.header("upload-length") == Some(&*length)));
    }

    #[test]
    fn bytes_that_an_earlier_try_left_wrong_are_sent_once_more_and_not_for_ever() {
        let (_folder, path) = file(BLOB_FROM_BYTES);
        let wrong = || Told::json(400, &json!({ "error": "other digest", "kind": "bad_request" }));
        let end = BLOB_FROM_BYTES - 1;
        let server =
            TestServer::answering(vec![missing(end), wrong(), missing(0), wrong().early()]);
        let client = Client::new(&server.url).unwrap();
        let failure = stage(&client, &path, &Out::standard(false)).err().unwrap();
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(server.asked().len(), 4);
    }
}
