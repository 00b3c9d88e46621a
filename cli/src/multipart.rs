//! The body of a publish: `multipart/form-data` (RFC 7578), streamed from files.

use std::hash::{BuildHasher, RandomState};

use crate::body::{Body, OpenFile};

/// A form that grows part by part.
pub(crate) struct Form {
    boundary: String,
    body: Body,
}

impl Form {
    /// An empty form under a boundary that no file is likely to contain: 128 random bits.
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().hash_one(0);
        Self::with_boundary(format!("modelet-{:016x}{:016x}", random(), random()))
    }

    fn with_boundary(boundary: String) -> Self {
        Self { boundary, body: Body::default() }
    }

    /// Appends a part that holds a JSON document.
    pub(crate) fn json(&mut self, name: &str, document: &serde_json::Value) {
        self.head(name, "application/json");
        self.body.push_bytes(document.to_string());
        self.body.push_bytes("\r\n");
    }

    /// Appends a part that holds a file.
    pub(crate) fn file(&mut self, name: &str, file: OpenFile) {
        self.head(name, "application/octet-stream");
        self.body.push_file(file);
        self.body.push_bytes("\r\n");
    }

    /// Ends the form: its content type and the body.
    pub(crate) fn finish(mut self) -> (String, Body) {
        self.body.push_bytes(format!("--{}--\r\n", self.boundary));
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }

    fn head(&mut self, name: &str, content_type: &str) {
        // Asset names hold no control characters and no backslashes, so a quote is all that needs
        // an escape. Other characters go as UTF-8, as RFC 7578 has it.
        let name = name.replace('"', "\\\"");
        self.body.push_bytes(format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\
             Content-Type: {content_type}\r\n\r\n",
            self.boundary
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;
    use crate::body;

    #[test]
    fn the_form_is_byte_exact_and_as_long_as_announced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"\r\n--bin\0ary").unwrap();
        let mut form = Form::with_boundary("b".to_owned());
        form.json("manifest", &json!({ "backend": "rten" }));
        form.file("asset:\u{e9} \"1\".bin", body::open(&path).unwrap());
        let (content_type, mut body) = form.finish();
        let length = body.length();
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "--b\r\nContent-Disposition: form-data; name=\"manifest\"\r\n\
             Content-Type: application/json\r\n\r\n{\"backend\":\"rten\"}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"asset:\u{e9} \\\"1\\\".bin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n\r\n--bin\0ary\r\n\
             --b--\r\n"
        );
        assert_eq!(length, bytes.len() as u64);
        assert_eq!(content_type, "multipart/form-data; boundary=b");
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(Form::new().boundary, Form::new().boundary);
    }
}
