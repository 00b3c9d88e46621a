//! Authenticate: whose request it is, and whether a web page is behind it that should not be.
//!
//! Authentication is off: every caller is the tenant `default`, and the server listens beyond
//! loopback only when told `--insecure-no-auth`. What is checked all the same is that a management
//! request does not come from a page in somebody's browser.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::request::Parts;

use crate::error::{Error, Kind};

/// The tenant everyone is until authentication is switched on.
pub const DEFAULT_TENANT: &str = "default";

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant that calls, and pays.
    pub tenant: Arc<str>,
}

/// Finds out whose request it is.
///
/// # Errors
/// None yet; with authentication, an unknown or missing key.
pub fn authenticate(_head: &Parts) -> Result<Caller, Error> {
    Ok(Caller { tenant: DEFAULT_TENANT.into() })
}

/// Refuses management requests that a web page could have caused: a foreign `Origin`, or a `Host` that
/// names no address of ours (DNS rebinding).
///
/// # Errors
/// [`Kind::Forbidden`], naming the header.
pub fn guard_management(head: &Parts, hosts: &[String]) -> Result<(), Error> {
    let authority = host_of(head)?;
    let name = host_name(&authority);
    let ours = name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    if !ours {
        return Err(Error::new(Kind::Forbidden, format!("this server is not known as {name:?}"))
            .at("header Host")
            .remedy("use its address, or add the name to server.hosts"));
    }
    let Some(origin) = head.headers.get(ORIGIN) else { return Ok(()) };
    let same = origin.to_str().is_ok_and(|origin| {
        origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(&authority))
    });
    if same {
        return Ok(());
    }
    Err(Error::new(Kind::Forbidden, "management requests are not taken from other web pages")
        .at("header Origin"))
}

/// The host and port a request names: HTTP/2 puts it into the target, HTTP/1 into a header.
fn host_of(head: &Parts) -> Result<String, Error> {
    if let Some(authority) = head.uri.authority() {
        return Ok(authority.as_str().to_owned());
    }
    let header = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    header
        .map(str::to_owned)
        .ok_or_else(|| Error::new(Kind::BadRequest, "the request names no host").at("header Host"))
}

/// The name without the port; an IPv6 address keeps its brackets.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(host: &str, origin: Option<&str>) -> Parts {
        let mut request = http::Request::builder().header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn addresses_and_localhost_may_manage_and_other_names_may_not() {
        for host in ["127.0.0.1:8080", "localhost", "localhost:1", "[::1]:8080", "10.0.0.7"] {
            assert!(guard_management(&head(host, None), &[]).is_ok(), "{host}");
        }
        let error = guard_management(&head("evil.example:8080", None), &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Forbidden);
        let known = ["models.example".to_owned()];
        assert!(guard_management(&head("models.example", None), &known).is_ok());
    }

    #[test]
    fn a_page_from_elsewhere_may_not_manage() {
        let host = "127.0.0.1:8080";
        assert!(guard_management(&head(host, Some("http://127.0.0.1:8080")), &[]).is_ok());
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9090"] {
            assert!(guard_management(&head(host, Some(origin)), &[]).is_err(), "{origin}");
        }
    }
}
