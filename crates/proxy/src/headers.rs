//! Headers that the proxy removes from requests and responses, and those that it adds.
//!
//! # Invariants
//!
//! Hop-by-hop fields (RFC 9110, 7.6.1) are never passed on: a field that only one side understands as framing enables request
//! smuggling.

use std::{net::IpAddr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use crate::trusted_network::TrustedNetwork;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The protocol of a valid upgrade request. HTTP/2 is excluded: requests inside an upgrade that the proxy doesn't understand
/// would bypass the routes.
pub(crate) fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asks = list_tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let is_http2 = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (asks && !is_http2).then(|| protocol.clone())
}

fn list_tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Removes hop-by-hop headers and those named by `Connection`.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_connection_headers(headers);
    }
    let mut others = false;
    for name in headers.keys() {
        others |= *name == TRANSFER_ENCODING
            || *name == UPGRADE
            || *name == TE
            || *name == EXPECT
            || *name == PROXY_AUTHENTICATE
            || *name == PROXY_AUTHORIZATION
            || *name == KEEP_ALIVE
            || *name == PROXY_CONNECTION
            || *name == HTTP2_SETTINGS;
    }
    if !others {
        return;
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
        // Answered by the proxy, as soon as an instance takes the body.
        EXPECT,
    ] {
        headers.remove(name);
    }
    // Only `TE: trailers` may be passed on.
    let trailers = list_tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn strip_connection_headers(headers: &mut HeaderMap) {
    let keeps = |name: &HeaderName| {
        // Otherwise a client could remove headers that the proxy and the instance rely on.
        *name == HOST || *name == http::header::CONTENT_LENGTH || *name == TE
    };
    let named: Vec<HeaderName> = list_tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| !keeps(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// HTTP/2 may send several cookie lines; HTTP/1.1 needs one (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// A connection's client and its forwarding headers, computed once per connection.
#[derive(Clone, Debug)]
pub(crate) struct ClientIdentity {
    address: IpAddr,
    text: HeaderValue,
    /// The trusted proxies; `None` if this client is not one of them.
    trusted: Option<Arc<[TrustedNetwork]>>,
}

impl ClientIdentity {
    pub(crate) fn new(address: IpAddr, trusted: &Arc<[TrustedNetwork]>) -> Self {
        let address = address.to_canonical();
        let text = HeaderValue::from_str(&address.to_string());
        let is_trusted = trusted.iter().any(|network| network.contains(address));
        Self {
            address,
            text: text.expect("an address is printable ASCII"),
            trusted: is_trusted.then(|| trusted.clone()),
        }
    }

    /// Whether the client is a trusted proxy.
    pub(crate) const fn is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// The requesting address: this client, or the last address in `X-Forwarded-For` that is not a trusted proxy's.
    pub(crate) fn origin_address(&self, headers: &HeaderMap) -> IpAddr {
        let Some(trusted) = &self.trusted else {
            return self.address;
        };
        let is_proxy = |address: IpAddr| trusted.iter().any(|it| it.contains(address));
        let mut origin = self.address;
        let hops: Vec<&str> = list_tokens(headers, &FORWARDED_FOR).collect();
        for hop in hops.into_iter().rev() {
            // An unparsable hop was not written by a trusted proxy.
            let Ok(address) = hop.parse::<IpAddr>() else {
                break;
            };
            origin = address.to_canonical();
            if !is_proxy(origin) {
                break;
            }
        }
        origin
    }

    /// `for=…;host=…;proto=http` (RFC 7239). An IPv6 address needs quotes and brackets, a host with a port needs quotes.
    fn forwarded_header(
        &self,
        before: Option<&HeaderValue>,
        host: &HeaderValue,
    ) -> Option<HeaderValue> {
        let address = self.text.as_bytes();
        let mut line = BytesMut::with_capacity(
            before.map_or(0, HeaderValue::len) + address.len() + host.len() + 32,
        );
        if let Some(before) = before {
            line.put_slice(before.as_bytes());
            line.put_slice(b", ");
        }
        let (open, close): (&[u8], &[u8]) = if self.address.is_ipv6() {
            (b"for=\"[", b"]\"")
        } else {
            (b"for=", b"")
        };
        for part in [open, address, close] {
            line.put_slice(part);
        }
        // A quote would end the quoted string: such a host is left out.
        if !host
            .as_bytes()
            .iter()
            .any(|byte| matches!(byte, b'"' | b'\\'))
        {
            for part in [b";host=\"", host.as_bytes(), b"\""] {
                line.put_slice(part);
            }
        }
        line.put_slice(b";proto=http");
        HeaderValue::from_maybe_shared(line.freeze()).ok()
    }
}

/// Adds forwarding headers, a request id and a trace id. Values sent by trusted proxies are kept, those of other clients are
/// replaced.
pub(crate) fn add_forwarding_headers(
    headers: &mut HeaderMap,
    client: &ClientIdentity,
    host: HeaderValue,
    mut random: impl FnMut() -> u64,
) {
    if !client.is_trusted() {
        strip_forwarding_headers(headers);
    }
    let origin = client.is_trusted().then(|| client.origin_address(headers));
    // A front that sends `X-Forwarded-*` alone would be contradicted by an element of this proxy: servers read `Forwarded` first.
    let is_told_otherwise = client.is_trusted()
        && !headers.contains_key(FORWARDED)
        && [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST]
            .iter()
            .any(|name| headers.contains_key(name));
    let forwarded_for = match headers.get(FORWARDED_FOR) {
        None => Some(client.text.clone()),
        Some(_) => join_lines(headers, &FORWARDED_FOR, client.text.as_bytes()),
    };
    let before = headers
        .get(FORWARDED)
        .is_some()
        .then(|| join_lines(headers, &FORWARDED, b""));
    let forwarded = (!is_told_otherwise)
        .then(|| client.forwarded_header(before.flatten().as_ref(), &host))
        .flatten();
    for (name, value) in [(FORWARDED_FOR, forwarded_for), (FORWARDED, forwarded)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    // The headers present here were sent by a trusted proxy.
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host);
    }
    if !headers.contains_key(REAL_IP) {
        let text = origin.and_then(|origin| HeaderValue::from_str(&origin.to_string()).ok());
        headers.insert(REAL_IP, text.unwrap_or_else(|| client.text.clone()));
    }
    let (named, traced) = (
        headers.contains_key(REQUEST_ID),
        headers.contains_key(TRACEPARENT),
    );
    if named && traced {
        return;
    }
    let (id, trace) = request_ids([random(), random() | 1, random() | 1]);
    if !named {
        headers.insert(REQUEST_ID, id);
    }
    if !traced {
        headers.insert(TRACEPARENT, trace);
    }
}

/// Removes all forwarding headers.
fn strip_forwarding_headers(headers: &mut HeaderMap) {
    let is_forwarding = |name: &&HeaderName| {
        **name == FORWARDED || **name == REAL_IP || name.as_str().starts_with("x-forwarded-")
    };
    let claimed: Vec<HeaderName> = headers.keys().filter(is_forwarding).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

/// Sets the removed path prefix; a value sent by the client is dropped.
pub(crate) fn set_forwarded_prefix(headers: &mut HeaderMap, prefix: Option<&str>) {
    match prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()) {
        Some(prefix) => drop(headers.insert(FORWARDED_PREFIX, prefix)),
        None => drop(headers.remove(FORWARDED_PREFIX)),
    }
}

/// Joins all lines of a field, with `last` appended.
fn join_lines(headers: &HeaderMap, name: &HeaderName, last: &[u8]) -> Option<HeaderValue> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let lines: Vec<&[u8]> = lines.chain((!last.is_empty()).then_some(last)).collect();
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
}

/// `X-Request-Id` and `traceparent` (W3C) of a request, in one allocation; the request id is the trace id.
fn request_ids(random: [u64; 3]) -> (HeaderValue, HeaderValue) {
    let mut digits = [[0; 16]; 3];
    for (digits, random) in digits.iter_mut().zip(random) {
        write_hex(digits, random);
    }
    let mut text = BytesMut::with_capacity(55);
    for part in [
        &b"00-"[..],
        &digits[0],
        &digits[1],
        b"-",
        &digits[2],
        b"-01",
    ] {
        text.put_slice(part);
    }
    let text = text.freeze();
    let value = |text: Bytes| HeaderValue::from_maybe_shared(text).expect("digits and dashes");
    (value(text.slice(3..35)), value(text))
}

/// Writes a number as 16 hexadecimal digits.
pub(crate) fn write_hex(digits: &mut [u8; 16], number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = DIGITS[(number >> (4 * place)) as usize & 15];
    }
}

/// The request id, for the access log.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_connection_names_goes_no_further() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, Host"),
            ("host", "h"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut kept: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["host", "x-kept"]);
        let mut headers = map(&[("te", "gzip, Trailers"), ("trailer", "x-sum")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            (&headers["te"], &headers["trailer"]),
            (&"trailers".parse().unwrap(), &"x-sum".parse().unwrap())
        );
    }

    fn client(address: &str, trusted: &[&str]) -> ClientIdentity {
        let trusted = trusted.iter().map(|network| network.parse().unwrap());
        ClientIdentity::new(address.parse().unwrap(), &trusted.collect())
    }

    /// What a terminator of TLS says, or somebody who pretends to be one.
    fn forwarded() -> HeaderMap {
        map(&[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9;proto=https"),
        ])
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_its_chain_grows() {
        let proxy = client("10.0.0.1", &["10.0.0.0/8"]);
        let mut headers = forwarded();
        assert_eq!(proxy.origin_address(&headers).to_string(), "203.0.113.9");
        add_forwarding_headers(&mut headers, &proxy, "inner".parse().unwrap(), || 7);
        assert_eq!(
            headers["x-forwarded-for"],
            "203.0.113.9, 10.0.0.2, 10.0.0.1"
        );
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert_eq!(headers["x-forwarded-port"], "443");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
        let appended = "for=10.0.0.1;host=\"inner\";proto=http";
        let all = format!("for=203.0.113.9;proto=https, {appended}");
        assert_eq!(headers["forwarded"], all);
    }

    #[test]
    fn a_trusted_proxy_that_sends_no_forwarded_header_is_not_contradicted() {
        let proxy = client("10.0.0.1", &["10.0.0.0/8"]);
        let mut headers = forwarded();
        headers.remove("forwarded");
        headers.remove("x-real-ip");
        add_forwarding_headers(&mut headers, &proxy, "inner".parse().unwrap(), || 7);
        assert!(!headers.contains_key("forwarded"));
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn nobody_else_is_believed() {
        let stranger = client("203.0.113.7", &["10.0.0.0/8"]);
        let mut headers = forwarded();
        assert_eq!(stranger.origin_address(&headers).to_string(), "203.0.113.7");
        add_forwarding_headers(&mut headers, &stranger, "inner".parse().unwrap(), || 7);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "inner");
        assert_eq!(headers["x-real-ip"], "203.0.113.7");
        assert!(!headers.contains_key("x-forwarded-port"));
        let own = "for=203.0.113.7;host=\"inner\";proto=http";
        assert_eq!(headers["forwarded"], own);
    }

    #[test]
    fn the_origin_is_the_last_that_no_trusted_proxy_claims_to_be() {
        let proxy = client("10.0.0.1", &["10.0.0.0/8"]);
        let origin = |chain: &str| {
            proxy
                .origin_address(&map(&[("x-forwarded-for", chain)]))
                .to_string()
        };
        assert_eq!(origin("1.1.1.1, 203.0.113.9, 10.0.0.3"), "203.0.113.9");
        assert_eq!(origin("10.0.0.4, 10.0.0.3"), "10.0.0.4");
        assert_eq!(origin("1.1.1.1, unknown, 10.0.0.3"), "10.0.0.3");
        assert_eq!(
            proxy.origin_address(&HeaderMap::new()).to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn the_chain_of_clients_grows_and_ids_are_kept() {
        let mut headers = map(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-prefix", "/forged"),
            ("x-request-id", "mine"),
        ]);
        let client = client("127.0.0.1", &["127.0.0.0/8"]);
        add_forwarding_headers(
            &mut headers,
            &client,
            "shop.example.com:80".parse().unwrap(),
            || 7,
        );
        set_forwarded_prefix(&mut headers, None);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 127.0.0.1");
        let last = "for=127.0.0.1;host=\"shop.example.com:80\";proto=http";
        assert_eq!(headers["forwarded"], format!("for=10.0.0.1, {last}"));
        assert_eq!(headers["x-request-id"], "mine");
        assert!(!headers.contains_key("x-forwarded-prefix"));
        let trace = "00-00000000000000070000000000000007-0000000000000007-01";
        assert_eq!(headers["traceparent"], trace);
    }

    #[test]
    fn an_ipv6_client_is_quoted() {
        let mut headers = HeaderMap::new();
        let client = client("2001:db8::1", &[]);
        add_forwarding_headers(&mut headers, &client, "h".parse().unwrap(), || 7);
        set_forwarded_prefix(&mut headers, Some("/shop"));
        assert_eq!(
            headers["forwarded"],
            "for=\"[2001:db8::1]\";host=\"h\";proto=http"
        );
        assert_eq!(headers["x-forwarded-prefix"], "/shop");
        assert_eq!(headers["x-request-id"], "00000000000000070000000000000007");
    }

    #[test]
    fn only_upgrades_that_can_be_tunnelled_are_asked_for() {
        let asks = |connection: &str, upgrade: &str| {
            requested_upgrade(&map(&[("connection", connection), ("upgrade", upgrade)])).is_some()
        };
        assert!(asks("keep-alive, Upgrade", "websocket"));
        assert!(!asks("keep-alive", "websocket"));
        assert!(!asks("upgrade, http2-settings", "h2c"));
    }

    #[test]
    fn cookies_are_sent_in_one_line() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
    }
}
