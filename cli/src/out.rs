//! What reaches the terminal: answers on stdout, everything else on stderr.
//!
//! Nothing is printed by macro: those panic when the reader of a pipe has gone away, and
//! `modelet models | head -1` is no reason to panic.

use std::cell::RefCell;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::table;

/// Where a command's answer goes, and in which form.
pub(crate) struct Out {
    /// Whether the answer is one JSON document instead of text for people.
    json: bool,
    stdout: RefCell<Box<dyn Write>>,
    stderr: RefCell<Box<dyn Write>>,
}

impl Out {
    /// The process's own stdout and stderr.
    pub(crate) fn standard(json: bool) -> Self {
        Self::to(json, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Any two writers.
    pub(crate) fn to(json: bool, stdout: Box<dyn Write>, stderr: Box<dyn Write>) -> Self {
        Self { json, stdout: RefCell::new(stdout), stderr: RefCell::new(stderr) }
    }

    /// Prints a command's answer: `document` with `--json`, otherwise what `text` gives.
    ///
    /// # Errors
    /// When stdout cannot be written, except that its reader has gone away.
    pub(crate) fn answer(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(document)
                .map_err(|error| Failure::from(anyhow::Error::new(error)))?
        } else {
            text()
        };
        write_lines(&mut **self.stdout.borrow_mut(), &text).map_err(|error| {
            Failure::new(Exit::Failed, format!("the answer could not be written: {error}"))
        })
    }

    /// Prints a part of an answer for people as it comes, and nothing behind it.
    ///
    /// # Errors
    /// When stdout cannot be written; also where its reader has gone away, for whom nothing more is made.
    pub(crate) fn part(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let mut stdout = self.stdout.borrow_mut();
        stdout.write_all(table::plain(text).as_bytes()).and_then(|()| stdout.flush()).map_err(
            |error| Failure::new(Exit::Failed, format!("the answer could not be written: {error}")),
        )
    }

    /// Prints `document` with `--json`, and nothing without: its text was printed in parts.
    ///
    /// # Errors
    /// When stdout cannot be written, except that its reader has gone away.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.answer(document, String::new) } else { Ok(()) }
    }

    /// Tells a person something that is not the answer, on stderr; silent with `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            // A note that cannot be written has nobody to read it.
            let _ = write_lines(&mut **self.stderr.borrow_mut(), &table::plain(text));
        }
    }

    /// Asks a person something on stderr, the cursor behind it; also with `--json`, whose document
    /// is on stdout.
    pub(crate) fn ask(&self, question: &str) {
        let mut stderr = self.stderr.borrow_mut();
        // Without the question the answer is still read, and anything but a yes is a no.
        let _ = stderr.write_all(table::plain(question).as_bytes()).and_then(|()| stderr.flush());
    }

    /// Reports why the command failed, and gives the code it ends with.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        // The exit code still tells of the failure when this cannot be written.
        let _ = if self.json {
            let text = format!("{:#}", failure.document());
            write_lines(&mut **self.stdout.borrow_mut(), &text)
        } else {
            let text = table::plain(&failure.to_string());
            write_lines(&mut **self.stderr.borrow_mut(), &text)
        };
        failure.exit()
    }
}

fn write_lines(to: &mut dyn Write, text: &str) -> io::Result<()> {
    let text = text.trim_end_matches('\n');
    match to.write_all(format!("{text}\n").as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;

    /// What was printed, for tests of whole commands.
    #[derive(Clone, Default)]
    pub(crate) struct Printed(Rc<RefCell<Vec<u8>>>);

    impl Printed {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }

        pub(crate) fn document(&self) -> Value {
            serde_json::from_slice(&self.0.borrow()).unwrap()
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An [`Out`] that is read back: its stdout and its stderr.
    pub(crate) fn captured(json: bool) -> (Out, Printed, Printed) {
        let (stdout, stderr) = (Printed::default(), Printed::default());
        (Out::to(json, Box::new(stdout.clone()), Box::new(stderr.clone())), stdout, stderr)
    }

    #[test]
    fn with_json_there_is_one_document_on_stdout_and_nothing_else() {
        let (out, stdout, stderr) = captured(true);
        out.note("half way");
        out.answer(&json!({ "a": 1 }), || unreachable!()).unwrap();
        assert_eq!(stdout.document(), json!({ "a": 1 }));
        assert_eq!(stderr.text(), "");
    }

    #[test]
    fn an_error_is_a_document_with_json_and_text_on_stderr_without() {
        let failure = Failure::new(Exit::Conflict, "taken");
        let (out, stdout, _) = captured(true);
        assert_eq!(out.failure(&failure), Exit::Conflict);
        assert_eq!(stdout.document(), json!({ "error": "taken", "kind": "conflict" }));

        let (out, stdout, stderr) = captured(false);
        out.failure(&failure);
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("", "error: taken\n"));
    }

    #[test]
    fn a_reader_that_left_is_not_an_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Out::to(false, Box::new(Gone), Box::new(Gone));
        assert!(out.answer(&json!(null), String::new).is_ok());
    }
}
