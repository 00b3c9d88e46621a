//! wasi:http for guests: what one store has of it, and which requests of its own a guest may make.
//!
//! A guest reaches nothing unless the operator named it. The names of hosts are looked up here, and a
//! connection goes to an address that was looked at: what a name means cannot change in between, and a
//! name that was allowed leads to no private address unless its network is named too. A redirect is an
//! answer like any other; a guest that follows it makes another request, which is looked at the same.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::state::GuestState;
use crate::config::GuestSettings;

/// Bytes of a body that a guest hands over at a time.
pub const CHUNK_BYTES: usize = 64 << 10;

/// How long another server may take to accept a connection, and then to answer; a guest may ask for
/// less, and the deadline of its own request ends it all the same.
const OUTGOING_TIMEOUT: Duration = Duration::from_secs(30);

/// What one store has of wasi:http.
pub(crate) struct HttpState {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl HttpState {
    pub(crate) fn new(outgoing: Arc<Outgoing>) -> Self {
        Self { context: WasiHttpCtx::new(), hooks: Hooks { outgoing } }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let outgoing = &self.version.outgoing;
        let new = || Box::new(HttpState::new(Arc::clone(outgoing)));
        let HttpState { context, hooks } = &mut **self.http.get_or_insert_with(new);
        WasiHttpCtxView { ctx: context, table: &mut self.table, hooks }
    }
}

struct Hooks {
    outgoing: Arc<Outgoing>,
}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Hooks {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let outgoing = Arc::clone(&self.outgoing);
        Box::new(async move { outgoing.send(request, options.unwrap_or_default()).await })
    }
}

/// What guests may reach.
#[derive(Debug)]
pub struct Outgoing {
    hosts: Vec<HostPattern>,
    networks: Vec<Network>,
    /// A permit for each connection there may be.
    connections: Arc<Semaphore>,
}

/// A host that may be asked: `example.org`, `*.example.org`, either with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPattern {
    /// In lower case; of `*.example.org`, what follows the star.
    name: String,
    is_suffix: bool,
    /// None for the scheme's own.
    port: Option<u16>,
}

/// Addresses that may be connected to although they are private: `10.1.0.0/16`, `::1`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Bits that are the network's.
    bits: u8,
}

impl Outgoing {
    /// Reads what an operator allows: names of hosts, and networks.
    ///
    /// # Errors
    /// The entry that is neither.
    pub fn new(settings: &GuestSettings) -> Result<Self, String> {
        let connections = Arc::new(Semaphore::new(settings.outgoing_connections as usize));
        let mut outgoing = Self { hosts: Vec::new(), networks: Vec::new(), connections };
        for entry in settings.outgoing_http.iter().map(String::as_str) {
            match (network(entry), host_pattern(entry)) {
                (Some(network), _) => outgoing.networks.push(network),
                (None, Some(host)) => outgoing.hosts.push(host),
                (None, None) => {
                    return Err(format!(
                        "guest.outgoing_http has {entry:?}, which is no host (example.org, \
                         *.example.org, example.org:8080) and no network (10.1.0.0/16, ::1)"
                    ));
                }
            }
        }
        Ok(outgoing)
    }

    /// Whether a host may be asked at this port. An address is its own name.
    fn allows(&self, host: &str, port: u16, scheme_port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let named = self.hosts.iter().any(|pattern| {
            let is_it = match pattern.is_suffix {
                true => host.strip_suffix(&pattern.name).is_some_and(|rest| rest.ends_with('.')),
                false => host == pattern.name,
            };
            is_it && pattern.port.unwrap_or(scheme_port) == port
        });
        named || host.parse().is_ok_and(|address| self.names(address))
    }

    /// Whether an address is in a network that the operator named.
    fn names(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.has(address.to_canonical()))
    }

    /// Whether a connection may be made to an address.
    fn reaches(&self, address: IpAddr) -> bool {
        is_public(address.to_canonical()) || self.names(address)
    }

    /// The addresses of a host that may be connected to.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<_> = found.map_err(|_| dns_error())?.collect();
        if found.is_empty() {
            return Err(dns_error());
        }
        let allowed: Vec<_> =
            found.into_iter().filter(|address| self.reaches(address.ip())).collect();
        if allowed.is_empty() { Err(Error::DestinationIpProhibited) } else { Ok(allowed) }
    }

    async fn send(&self, request: Request<WasiBody>, options: RequestOptions) -> Sent {
        let (stream, place) = match self.connect(request.uri(), &options).await {
            Ok(connected) => connected,
            Err(error) => {
                // A guest that cannot write would take that for the reason.
                tokio::spawn(unread(request.into_body()));
                return Err(error);
            }
        };
        let answering = answer(stream, place, request);
        let answered = tokio::time::timeout(limit(options.first_byte_timeout), answering).await;
        answered.map_err(|_| Error::HttpResponseTimeout)?
    }

    /// A connection to where a request goes, if it may go there.
    async fn connect(
        &self,
        uri: &Uri,
        options: &RequestOptions,
    ) -> Result<(TcpStream, OwnedSemaphorePermit), Error> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(Error::HttpRequestDenied);
        }
        let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(HTTP_PORT);
        if !self.allows(&host, port, HTTP_PORT) {
            return Err(Error::HttpRequestDenied);
        }
        let place = Arc::clone(&self.connections).try_acquire_owned();
        let place = place.map_err(|_| Error::ConnectionLimitReached)?;
        let connecting = async {
            let addresses = self.addresses(&host, port).await?;
            TcpStream::connect(&*addresses).await.map_err(Error::Connect)
        };
        let stream = tokio::time::timeout(limit(options.connect_timeout), connecting).await;
        Ok((stream.map_err(|_| Error::ConnectionTimeout)??, place))
    }
}

/// How long to wait where a guest asks for so long, or says nothing.
fn limit(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(OUTGOING_TIMEOUT).min(OUTGOING_TIMEOUT)
}

/// Reads what nobody wants, until its guest has written it all or is gone.
pub(crate) async fn unread(mut body: WasiBody) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// The port of HTTP where an address names none.
const HTTP_PORT: u16 = 80;

/// Sends a request on a connection of its own, which has its place until it ends, and waits for the head
/// of the answer.
async fn answer(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    mut request: Request<WasiBody>,
) -> Sent {
    let shake = hyper::client::conn::http1::handshake::<_, WasiBody>(TokioIo::new(stream));
    let (mut sender, connection) = shake.await.map_err(Error::Hyper)?;
    // A server is asked for a path; only proxies are told where it is.
    let path = request.uri().path_and_query().cloned();
    let path = path.map_or_else(Uri::default, Uri::from);
    *request.uri_mut() = path;
    let connection = tokio::spawn(async move {
        let _place = place;
        connection.await
    });
    let answer = sender.send_request(request).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            connection.abort();
            return Err(Error::Hyper(error));
        }
    };
    let rest = async move {
        match connection.await {
            Ok(ended) => ended.map_err(Error::Hyper),
            Err(_) => Ok(()),
        }
    };
    let body = |body: hyper::body::Incoming| body.map_err(Error::Hyper).boxed_unsync();
    Ok((answer.map(body), Box::new(rest)))
}

fn dns_error() -> Error {
    Error::DnsError { rcode: None, info_code: None }
}

fn host_pattern(entry: &str) -> Option<HostPattern> {
    let (name, port) = match entry.rsplit_once(':') {
        None => (entry, None),
        Some((name, port)) => (name, Some(port.parse().ok()?)),
    };
    let (name, is_suffix) = match name.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(is_label).then(|| HostPattern {
        name: name.to_ascii_lowercase(),
        is_suffix,
        port,
    })
}

fn network(entry: &str) -> Option<Network> {
    let (address, bits) = match entry.split_once('/') {
        None => (entry, None),
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(Network { address, bits })
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host_bits = u32::from(width - self.bits);
        // A network of no bits has every address.
        own.checked_shr(host_bits).unwrap_or(0) == other.checked_shr(host_bits).unwrap_or(0)
    }
}

/// Whether an address is one of the open internet's.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            let is_special = address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_documentation()
                || address.is_multicast()
                || a == 0
                || a >= 240
                // Carriers' own, protocol assignments, and benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && (b == 18 || b == 19));
            !is_special
        }
        IpAddr::V6(address) => {
            // 2000::/3 is what is given out; of it, documentation and ways to IPv4 are not taken.
            let [a, b, ..] = address.segments();
            a & 0xe000 == 0x2000
                && (a, b) != (0x2001, 0x0db8)
                && a != 0x2002
                && (a, b) != (0x2001, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[&str]) -> GuestSettings {
        let outgoing_http = entries.iter().map(ToString::to_string).collect();
        GuestSettings { outgoing_http, outgoing_connections: 1, ..GuestSettings::default() }
    }

    fn outgoing(entries: &[&str]) -> Outgoing {
        Outgoing::new(&settings(entries)).unwrap()
    }

    #[test]
    fn nothing_is_allowed_that_was_not_named() {
        let none = outgoing(&[]);
        assert!(!none.allows("example.org", 80, 80) && !none.allows("127.0.0.1", 80, 80));
        let some = outgoing(&["example.org", "*.models.example", "internal:8080", "10.1.0.0/16"]);
        for (host, port, allowed) in [
            ("example.org", 80, true),
            ("EXAMPLE.org", 80, true),
            ("example.org", 8080, false),
            ("www.example.org", 80, false),
            ("badexample.org", 80, false),
            ("a.models.example", 80, true),
            ("a.b.models.example", 80, true),
            ("models.example", 80, false),
            ("badmodels.example", 80, false),
            ("internal", 8080, true),
            ("internal", 80, false),
            ("10.1.2.3", 9000, true),
            ("10.2.2.3", 80, false),
            ("8.8.8.8", 80, false),
        ] {
            assert_eq!(some.allows(host, port, 80), allowed, "{host}:{port}");
        }
    }

    #[test]
    fn private_addresses_are_reached_only_where_their_network_is_named() {
        let none = outgoing(&["example.org"]);
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!none.reaches(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(none.reaches(public.parse().unwrap()), "{public}");
        }
        let named = outgoing(&["127.0.0.0/8", "::1", "fd00::/8"]);
        for (address, reached) in [
            ("127.1.2.3", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::1", true),
            ("::2", false),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(named.reaches(address.parse().unwrap()), reached, "{address}");
        }
        assert!(outgoing(&["0.0.0.0/0"]).reaches("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_entry_that_is_neither_host_nor_network_is_refused_by_name() {
        for entry in
            ["", "http://example.org", "example.org/path", "10.0.0.0/33", "a:b", "*", "a..b"]
        {
            let error = Outgoing::new(&settings(&[entry])).unwrap_err();
            assert!(error.contains(&format!("{entry:?}")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_means_a_private_address_is_prohibited() {
        let named = outgoing(&["localhost"]);
        let found = named.addresses("localhost", 80).await;
        assert!(matches!(found, Err(Error::DestinationIpProhibited)), "{found:?}");
        let both = outgoing(&["localhost", "127.0.0.0/8", "::1"]);
        assert!(!both.addresses("localhost", 80).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn guests_have_no_more_connections_than_they_may() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", server.local_addr().unwrap()).parse().unwrap();
        let outgoing = outgoing(&["127.0.0.1"]);
        let options = RequestOptions::default();
        let first = outgoing.connect(&uri, &options).await.unwrap();
        let second = outgoing.connect(&uri, &options).await;
        assert!(matches!(second, Err(Error::ConnectionLimitReached)), "{second:?}");
        drop(first);
        assert!(outgoing.connect(&uri, &options).await.is_ok());
    }
}
