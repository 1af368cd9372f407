//! A request as it came in: checked, and made ready to go on. What two readers could read differently is refused here, before
//! anything is forwarded.
//!
//! hyper has refused by now: lengths that contradict each other, broken chunks, folded lines, spaces before a colon, heads that
//! are too large; and with the help of `strict`, requests with both `Content-Length` and `Transfer-Encoding`, and bare line feeds.

use std::{net::IpAddr, rc::Rc, time::Instant};

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use crate::{
    body::{Progress, Upload, drain},
    headers::{Client, add_forwarding, join_cookies, set_prefix, strip_hop_by_hop, wanted_upgrade},
    table::Lane,
};

/// A request on its way.
pub(crate) struct Asked {
    /// `None` while it is being sent.
    pub(crate) request: Option<Request<Upload>>,
    /// What the client asked for, before a prefix is taken off.
    pub(crate) target: Uri,
    /// Host and port, as the client said.
    pub(crate) host: HeaderValue,
    pub(crate) upload: Option<Rc<Progress>>,
    /// The client's side, if it wants to change the protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) begun: Instant,
    /// Who asks: the peer, or who a trusted proxy says it asks for.
    pub(crate) client: IpAddr,
    is_forwarded: bool,
    /// It was sent again after an instance died; that is done once.
    pub(crate) is_repeated: bool,
    /// Decides for a user who has no key.
    pub(crate) random: u64,
}

/// Why a request isn't forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Connect,
    Target,
    Host,
    TransferEncoding,
}

impl Asked {
    pub(crate) fn new(
        mut request: Request<Incoming>,
        client: &Client,
        mut random: impl FnMut() -> u64,
    ) -> Result<Self, Refusal> {
        let begun = Instant::now();
        let host = match checked_host(&request) {
            Ok(host) => host,
            Err(refusal) => {
                drain(request.into_body());
                return Err(refusal);
            }
        };
        let target = request.uri().clone();
        let protocol = match request.version() {
            Version::HTTP_11 => wanted_upgrade(request.headers()),
            _ => None,
        };
        let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let first = random();
        let (mut parts, body) = request.into_parts();
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        let is_awaited = parts.headers.contains_key(EXPECT);
        strip_hop_by_hop(&mut parts.headers);
        if let Some(protocol) = protocol {
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        let address = client.origin(&parts.headers);
        add_forwarding(&mut parts.headers, client, host.clone(), random);
        if parts.version != Version::HTTP_11 || target.authority().is_some() {
            parts.headers.insert(HOST, host.clone());
            parts.version = Version::HTTP_11;
        }
        let (upload, progress) = Upload::new(body, is_awaited);
        let request = Some(Request::from_parts(parts, upload));
        Ok(Self {
            request,
            target,
            host,
            upload: progress,
            upgrade,
            begun,
            client: address,
            is_forwarded: client.is_trusted(),
            is_repeated: false,
            random: first,
        })
    }

    /// The host without its port; an IPv6 address keeps its brackets.
    pub(crate) fn host_name(&self) -> &str {
        let authority = self.host.to_str().unwrap_or_default();
        let colon = authority
            .rfind(':')
            .filter(|colon| !authority[*colon..].contains(']'));
        &authority[..colon.unwrap_or(authority.len())]
    }

    /// The headers, for choosing.
    pub(crate) fn headers(&self) -> Option<&HeaderMap> {
        self.request.as_ref().map(Request::headers)
    }

    /// Where a page is requested whose relative links would leave the prefix that is taken off: the same path with a slash at its
    /// end. Other methods and upgrades are not redirected, because their clients often don't follow.
    pub(crate) fn with_slash(&self, lane: &Lane) -> Option<HeaderValue> {
        let prefix = lane.prefix.as_deref()?;
        let method = self.request.as_ref()?.method();
        let is_page = [Method::GET, Method::HEAD].contains(method) && self.upgrade.is_none();
        if !is_page || self.target.path() != prefix {
            return None;
        }
        let query = self.target.query().map(|query| format!("?{query}"));
        HeaderValue::try_from(format!("{prefix}/{}", query.unwrap_or_default())).ok()
    }

    /// Takes the request out, with the target that this lane's instances know.
    pub(crate) fn aimed_at(&mut self, lane: &Lane) -> Option<Request<Upload>> {
        let mut request = self.request.take()?;
        let prefix = lane.prefix.as_deref();
        if prefix.is_some() || !self.is_forwarded {
            set_prefix(request.headers_mut(), prefix);
        }
        if let Some(prefix) = prefix {
            *request.uri_mut() = without(prefix, &self.target);
        } else if self.target.authority().is_some() {
            *request.uri_mut() = origin(&self.target);
        }
        Some(request)
    }
}

/// The host, where the request is one that can be forwarded.
fn checked_host<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    // Only CONNECT has an authority alone (RFC 9112, 3.2.3).
    if request.uri().authority().is_some() && request.uri().scheme().is_none() {
        return Err(Refusal::Target);
    }
    check_framing(request.headers())?;
    host_of(request)
}

/// `chunked` is the only coding that is understood; anything more would have to be undone here.
fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err(Refusal::TransferEncoding),
    }
}

/// The authority of the target, or else the one `Host` (RFC 9112, 3.2).
fn host_of<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Refusal::Host);
    }
    let host = match (request.uri().authority(), host) {
        (Some(authority), _) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)?
        }
        (None, Some(host)) => host.clone(),
        (None, None) if request.version() == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None) => return Err(Refusal::Host),
    };
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]~%".contains(byte);
    if host.as_bytes().iter().all(harmless) {
        Ok(host)
    } else {
        Err(Refusal::Host)
    }
}

/// Only path and query (RFC 9112, 3.2.1).
fn origin(target: &Uri) -> Uri {
    let root = || PathAndQuery::from_static("/");
    Uri::from(target.path_and_query().cloned().unwrap_or_else(root))
}

fn without(prefix: &str, target: &Uri) -> Uri {
    let whole = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let Some(rest) = whole.strip_prefix(prefix) else {
        return origin(target);
    };
    let rest = match rest.as_bytes().first() {
        Some(b'/') => rest.parse(),
        Some(b'?') | None => format!("/{rest}").parse(),
        // `/shopping` isn't below `/shop`: it came in by the port.
        Some(_) => return origin(target),
    };
    // What is left of a valid target is one.
    rest.unwrap_or_else(|_| Uri::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off_whole_segments_only() {
        let rest = |target: &str| without("/shop", &target.parse().unwrap()).to_string();
        assert_eq!(rest("/shop"), "/");
        assert_eq!(rest("/shop?a=1"), "/?a=1");
        assert_eq!(rest("/shop/a/?b=/shop"), "/a/?b=/shop");
        assert_eq!(rest("/shopping"), "/shopping");
        assert_eq!(rest("http://h/shop/a"), "/a");
        assert_eq!(rest("/shop//evil.example/"), "//evil.example/");
    }

    #[test]
    fn a_request_has_one_plain_host() {
        let host = |target: &str, hosts: &[&str]| {
            let mut request = Request::get(target);
            for host in hosts {
                request = request.header("host", *host);
            }
            host_of(&request.body(()).unwrap())
        };
        assert_eq!(host("/", &["h:80"]).unwrap(), "h:80");
        assert_eq!(host("http://other/", &["h"]).unwrap(), "other");
        assert_eq!(host("/", &["[::1]:80"]).unwrap(), "[::1]:80");
        for bad in [&["a", "a"][..], &[], &["a/b"], &["a b"], &["user@h"]] {
            assert_eq!(host("/", bad), Err(Refusal::Host), "{bad:?}");
        }
    }
}
