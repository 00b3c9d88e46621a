//! Protocol: which of those on this port a request speaks, and so how it is refused.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Response, Version};

use super::body::Body;
use super::{encode, openai};
use crate::error::Error;
use crate::grpc::status;

/// The protocols that requests speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP with JSON and binary bodies.
    Rest,
    /// HTTP with JSON in the shape of OpenAI's API.
    OpenAi,
    /// gRPC: messages over HTTP/2.
    Grpc,
}

impl Protocol {
    /// The protocol of a request, by its content type. gRPC-Web is another protocol, and HTTP/1 cannot
    /// carry this one.
    pub fn of(head: &Parts) -> Self {
        let content_type = head.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let subtype = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
        match subtype {
            Some([] | [b'+' | b';', ..]) if head.version == Version::HTTP_2 => Self::Grpc,
            _ if openai::error::speaks(head.uri.path()) => Self::OpenAi,
            _ => Self::Rest,
        }
    }

    /// A refusal as the protocol's clients read it.
    pub fn refuse(self, error: &Error) -> Response<Body> {
        match self {
            Self::Rest => encode::error(error),
            Self::OpenAi => openai::error::response(error),
            Self::Grpc => status::refuse(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type_and_http_2() {
        for (content_type, protocol) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("application/grpc;charset=x", Protocol::Grpc),
            ("application/grpc-web", Protocol::Rest),
            ("application/json", Protocol::Rest),
        ] {
            let mut head = http::Request::new(()).into_parts().0;
            head.headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            assert_eq!(Protocol::of(&head), Protocol::Rest, "{content_type} over HTTP/1");
            head.version = Version::HTTP_2;
            assert_eq!(Protocol::of(&head), protocol, "{content_type}");
        }
    }
}
