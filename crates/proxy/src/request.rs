//! Validates a request and prepares it for forwarding. Anything that two parsers could read differently is rejected here.
//!
//! hyper has already rejected contradicting lengths, broken chunks, folded lines, spaces before a colon and heads that are too
//! large; with `framing_guard` also requests with both `Content-Length` and `Transfer-Encoding`, and bare line feeds.

use std::{net::IpAddr, rc::Rc, time::Instant};

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use crate::{
    headers::{
        ClientIdentity, add_forwarding_headers, join_cookies, requested_upgrade,
        set_forwarded_prefix, strip_hop_by_hop,
    },
    request_body::{RequestBody, UploadProgress, UploadStart, drain_body},
    route_table::CompiledRoute,
};

/// A request that passed validation.
pub(crate) struct ValidatedRequest {
    /// `None` while it is being sent.
    pub(crate) outgoing: Option<Request<RequestBody>>,
    /// The client's target, before a prefix is removed.
    pub(crate) target: Uri,
    /// Host and port as sent by the client.
    pub(crate) host: HeaderValue,
    pub(crate) upload: Option<Rc<UploadProgress>>,
    /// The client's half of the upgrade, if it requested one.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) started_at: Instant,
    /// The client's address: the peer, or the one that a trusted proxy reports.
    pub(crate) client: IpAddr,
    is_forwarded: bool,
    /// It was sent again after an instance died; that is done only once.
    pub(crate) is_repeated: bool,
    /// Chooses the backend of a user without a key.
    pub(crate) random: u64,
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestRejection {
    Connect,
    Target,
    Host,
    TransferEncoding,
}

impl ValidatedRequest {
    pub(crate) fn new(
        mut request: Request<Incoming>,
        client: &ClientIdentity,
        mut random: impl FnMut() -> u64,
    ) -> Result<Self, RequestRejection> {
        let started_at = Instant::now();
        let host = match validate_host(&request) {
            Ok(host) => host,
            Err(refusal) => {
                drain_body(request.into_body());
                return Err(refusal);
            }
        };
        let target = request.uri().clone();
        let protocol = match request.version() {
            Version::HTTP_11 => requested_upgrade(request.headers()),
            _ => None,
        };
        let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let first = random();
        let (mut parts, body) = request.into_parts();
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        let upload_start = match parts.headers.contains_key(EXPECT) {
            true => UploadStart::AfterContinue,
            false => UploadStart::AtOnce,
        };
        strip_hop_by_hop(&mut parts.headers);
        if let Some(protocol) = protocol {
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        let address = client.origin_address(&parts.headers);
        add_forwarding_headers(&mut parts.headers, client, host.clone(), random);
        if parts.version != Version::HTTP_11 || target.authority().is_some() {
            parts.headers.insert(HOST, host.clone());
            parts.version = Version::HTTP_11;
        }
        let (upload, progress) = RequestBody::new(body, upload_start);
        let request = Some(Request::from_parts(parts, upload));
        Ok(Self {
            outgoing: request,
            target,
            host,
            upload: progress,
            upgrade,
            started_at,
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

    pub(crate) fn headers(&self) -> Option<&HeaderMap> {
        self.outgoing.as_ref().map(Request::headers)
    }

    /// Redirect to the same path with a trailing slash, for a page whose relative links would leave the removed prefix. Other
    /// methods and upgrades are not redirected, because their clients often don't follow.
    pub(crate) fn slash_redirect(&self, route: &CompiledRoute) -> Option<HeaderValue> {
        let prefix = route.prefix.as_deref()?;
        let method = self.outgoing.as_ref()?.method();
        let is_page = [Method::GET, Method::HEAD].contains(method) && self.upgrade.is_none();
        if !is_page || self.target.path() != prefix {
            return None;
        }
        let query = self.target.query().map(|query| format!("?{query}"));
        HeaderValue::try_from(format!("{prefix}/{}", query.unwrap_or_default())).ok()
    }

    /// Takes the request out, with its target rewritten for the instances of this route.
    pub(crate) fn take_for_route(&mut self, route: &CompiledRoute) -> Option<Request<RequestBody>> {
        let mut request = self.outgoing.take()?;
        let prefix = route.prefix.as_deref();
        if prefix.is_some() || !self.is_forwarded {
            set_forwarded_prefix(request.headers_mut(), prefix);
        }
        if let Some(prefix) = prefix {
            *request.uri_mut() = strip_path_prefix(prefix, &self.target);
        } else if self.target.authority().is_some() {
            *request.uri_mut() = origin_form(&self.target);
        }
        Some(request)
    }
}

/// Checks that the request can be forwarded and returns its host.
fn validate_host<B>(request: &Request<B>) -> Result<HeaderValue, RequestRejection> {
    if request.method() == Method::CONNECT {
        return Err(RequestRejection::Connect);
    }
    // Only CONNECT has an authority alone (RFC 9112, 3.2.3).
    if request.uri().authority().is_some() && request.uri().scheme().is_none() {
        return Err(RequestRejection::Target);
    }
    check_framing(request.headers())?;
    request_host(request)
}

/// `chunked` is the only supported coding; any other would have to be decoded here.
fn check_framing(headers: &HeaderMap) -> Result<(), RequestRejection> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err(RequestRejection::TransferEncoding),
    }
}

/// The authority of the target, or else the one `Host` (RFC 9112, 3.2).
fn request_host<B>(request: &Request<B>) -> Result<HeaderValue, RequestRejection> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(RequestRejection::Host);
    }
    let host = match (request.uri().authority(), host) {
        (Some(authority), _) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| RequestRejection::Host)?
        }
        (None, Some(host)) => host.clone(),
        (None, None) if request.version() == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None) => return Err(RequestRejection::Host),
    };
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]~%".contains(byte);
    if host.as_bytes().iter().all(harmless) {
        Ok(host)
    } else {
        Err(RequestRejection::Host)
    }
}

/// The origin form of a target: path and query (RFC 9112, 3.2.1).
fn origin_form(target: &Uri) -> Uri {
    let root = || PathAndQuery::from_static("/");
    Uri::from(target.path_and_query().cloned().unwrap_or_else(root))
}

fn strip_path_prefix(prefix: &str, target: &Uri) -> Uri {
    let whole = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let Some(rest) = whole.strip_prefix(prefix) else {
        return origin_form(target);
    };
    let rest = match rest.as_bytes().first() {
        Some(b'/') => rest.parse(),
        Some(b'?') | None => format!("/{rest}").parse(),
        // `/shopping` isn't below `/shop`: this request matched by its port.
        Some(_) => return origin_form(target),
    };
    // The rest of a valid target is a valid target.
    rest.unwrap_or_else(|_| Uri::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off_whole_segments_only() {
        let rest = |target: &str| strip_path_prefix("/shop", &target.parse().unwrap()).to_string();
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
            request_host(&request.body(()).unwrap())
        };
        assert_eq!(host("/", &["h:80"]).unwrap(), "h:80");
        assert_eq!(host("http://other/", &["h"]).unwrap(), "other");
        assert_eq!(host("/", &["[::1]:80"]).unwrap(), "[::1]:80");
        for bad in [&["a", "a"][..], &[], &["a/b"], &["a b"], &["user@h"]] {
            assert_eq!(host("/", bad), Err(RequestRejection::Host), "{bad:?}");
        }
    }
}
