//! Request bodies that are read from files while they are sent, with their length known before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::failure::Failure;

/// Bodies below this are sent before a bar could be read: a megabyte takes milliseconds.
const PROGRESS_FROM_BYTES: u64 = 1 << 20;

/// What is done with a body while it is read, as a bar says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Only its digest is taken; nobody is waited for at its end.
    Hashing,
    /// It is sent; at its end the server's answer is waited for.
    Sending,
}

/// A request body: bytes and files, one after the other.
#[derive(Default)]
pub(crate) struct Body {
    /// What is still to be read, the next first.
    segments: VecDeque<Segment>,
    /// The bytes of all segments together, as announced in Content-Length.
    length: u64,
    /// Shows how much was read, and what for; hidden unless asked for.
    progress: Option<(ProgressBar, Doing)>,
}

enum Segment {
    Bytes(Cursor<Vec<u8>>),
    /// A file, limited to the length it had when it was opened.
    File {
        path: PathBuf,
        file: Take<File>,
    },
}

/// A file that could not be read to the end while it was sent: not the network's fault, which an
/// error of the HTTP client would otherwise look like.
#[derive(Debug, thiserror::Error)]
#[error("'{path}' {problem}")]
pub(crate) struct FileError {
    path: String,
    problem: String,
}

impl Body {
    /// Appends bytes.
    pub(crate) fn push_bytes(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.segments.push_back(Segment::Bytes(Cursor::new(bytes)));
    }

    /// Appends a file that [`open`] gave.
    pub(crate) fn push_file(&mut self, opened: OpenFile) {
        let OpenFile { path, file, length } = opened;
        self.length = self.length.saturating_add(length);
        self.segments.push_back(Segment::File { path, file: file.take(length) });
    }

    /// The length of the whole body in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Shows a bar on stderr while the body is read, if that is a terminal and it takes a while.
    pub(crate) fn show_progress(&mut self, doing: Doing) {
        if self.length < PROGRESS_FROM_BYTES || !io::stderr().is_terminal() {
            return;
        }
        self.progress = Some((bar(self.length, doing), doing));
    }
}

fn bar(length: u64, doing: Doing) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_message(match doing {
        Doing::Hashing => "hashing",
        Doing::Sending => "sending",
    });
    bar
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(segment) = self.segments.front_mut() {
            let count = segment.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                if let Some((bar, _)) = &self.progress {
                    bar.inc(count as u64);
                }
                return Ok(count);
            }
            self.segments.pop_front();
        }
        if let Some((bar, Doing::Sending)) = &self.progress {
            wait_for_the_server(bar);
        }
        Ok(0)
    }
}

/// What is sent is checked, and a component compiled, before there is an answer.
fn wait_for_the_server(bar: &ProgressBar) {
    const TICK: Duration = Duration::from_millis(100);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message("sent; the server checks it");
    bar.enable_steady_tick(TICK);
}

impl Drop for Body {
    // The answer is printed next; a bar would only stand in its way.
    fn drop(&mut self) {
        if let Some((bar, _)) = self.progress.take() {
            bar.finish_and_clear();
        }
    }
}

impl Segment {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::File { path, file } => {
                let failed = |problem: String| {
                    io::Error::other(FileError { path: path.display().to_string(), problem })
                };
                let count = file
                    .read(buffer)
                    .map_err(|error| failed(format!("could not be read: {error}")))?;
                // Ending early would leave the server waiting for bytes that never come.
                if count == 0 && file.limit() > 0 && !buffer.is_empty() {
                    return Err(failed(format!(
                        "became {} bytes shorter while it was sent",
                        file.limit()
                    )));
                }
                Ok(count)
            }
        }
    }
}

/// A file opened for sending, and its length at that moment.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl OpenFile {
    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file from its `offset`th byte on.
    ///
    /// # Errors
    /// When the file is not that long.
    pub(crate) fn skip(mut self, offset: u64) -> Result<Self, Failure> {
        let Some(length) = self.length.checked_sub(offset) else {
            let text = format!("'{}' has less than {offset} bytes", self.path.display());
            return Err(Failure::new(Exit::Failed, text));
        };
        self.length = length;
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map_err(|error| unreadable(&self.path, &error))?;
        Ok(self)
    }
}

/// Opens a file for sending. Only regular files have a length that can be announced.
///
/// # Errors
/// When there is none, it cannot be read, or it is a folder or a pipe.
pub(crate) fn open(path: &Path) -> Result<OpenFile, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Failure::new(
            Exit::Failed,
            format!("'{}' is not a regular file", path.display()),
        ));
    }
    Ok(OpenFile { path: path.to_owned(), file, length: metadata.len() })
}

/// The failure of a local file that could not be opened or read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format!("'{}' could not be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read_in_order_and_have_the_announced_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"from a file").unwrap();
        let mut body = Body::default();
        body.push_bytes("before ");
        body.push_file(open(&path).unwrap());
        body.push_bytes("");
        body.push_bytes(" after");
        let length = body.length();
        let mut read = String::new();
        body.read_to_string(&mut read).unwrap();
        assert_eq!(read, "before from a file after");
        assert_eq!(length, read.len() as u64);
    }

    #[test]
    fn a_file_that_grows_is_sent_as_it_was_and_one_that_shrinks_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for (now, sent) in [("12345678", Some("1234")), ("12", None)] {
            std::fs::write(&path, "1234").unwrap();
            let mut body = Body::default();
            body.push_file(open(&path).unwrap());
            std::fs::write(&path, now).unwrap();
            let mut read = String::new();
            let result = body.read_to_string(&mut read);
            match sent {
                Some(sent) => assert_eq!(read, sent),
                None => {
                    let error = result.unwrap_err();
                    assert!(error.get_ref().unwrap().is::<FileError>());
                    assert!(error.to_string().contains("2 bytes shorter"), "{error}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_sent_has_the_server_check_it_in_the_end() {
        for (doing, end) in
            [(Doing::Hashing, "hashing"), (Doing::Sending, "sent; the server checks it")]
        {
            let mut body = Body::default();
            body.push_bytes("all of it");
            let bar = bar(body.length(), doing);
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
            body.progress = Some((bar.clone(), doing));
            io::copy(&mut body, &mut io::sink()).unwrap();
            assert_eq!((bar.message().as_str(), bar.position()), (end, 9), "{doing:?}");
        }
    }

    #[test]
    fn what_is_not_a_file_is_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(open(&folder.path().join("none")).unwrap_err().exit(), Exit::NotFound);
        assert!(open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    }
}
