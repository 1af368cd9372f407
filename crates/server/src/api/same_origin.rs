//! Refuses requests that are addressed to another host, or that a page of another web site has sent.
//!
//! *Why.* The browser on this machine runs pages of other web sites. Such a page may send requests to `http://127.0.0.1:7878`
//! (cross-site request forgery), or make its own name resolve to 127.0.0.1 and then read the answers as well (DNS rebinding).
//! Neither needs access to this machine's network, and without a token nothing else would stop them.
//!
//! *Rules.* Without a token `Host` must name this machine or `--public-url`. Whatever changes something must come from a page of this
//! server (`Origin`, `Sec-Fetch-Site`) or from a program, which sends neither header, and be JSON, which no form can send. All that
//! git asks for counts as a change: a first push makes a repository when it only reads references. The rules hold for every address,
//! also for those that don't exist.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::{
    accounts::UserAccounts,
    capabilities::{ClientTokens, ServerAddresses},
};

/// What a request says about where it comes from and where it goes.
struct RequestOrigin<'r> {
    method: &'r Method,
    uri: &'r Uri,
    headers: &'r HeaderMap,
}

/// Passes on requests that are addressed to this server and come from no other site; refuses all others before any handler sees them.
pub(crate) async fn require_same_origin(
    State(server_addresses): State<ServerAddresses>,
    State(client_tokens): State<Arc<ClientTokens>>,
    State(accounts): State<Arc<UserAccounts>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = RequestOrigin {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
    };
    let has_users = accounts.has_users().await.unwrap_or_default();
    let protection = match has_users || client_tokens.server_token.is_some() {
        true => OriginProtection::Token,
        false => OriginProtection::ThisMachine,
    };
    match check_origin(&origin, &server_addresses.url, protection) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What protects the server from requests that a browser sends for a foreign page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OriginProtection {
    /// Every request needs a token, which a foreign page doesn't have.
    Token,
    /// Requests need no token, so the host of each must be this server.
    ThisMachine,
}

fn check_origin(
    origin: &RequestOrigin<'_>,
    own_url: &str,
    protection: OriginProtection,
) -> Result<(), ApiError> {
    let own = own_url.parse::<Uri>().ok();
    let own = own.as_ref().and_then(Uri::authority);
    let hosts = hosts(origin)?;
    if protection == OriginProtection::ThisMachine
        && let Some(host) = hosts.iter().find(|host| !is_own_host(host, own))
    {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "the request is for {}, which is not this server: use {own_url}, or start the server with --public-url http://{host} (or with a token)",
                host.host()
            ),
        ));
    }
    let is_git = origin.uri.path().starts_with("/git/");
    let changes_nothing = matches!(
        *origin.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    if changes_nothing && !is_git {
        return Ok(());
    }
    check_site(origin.headers, &hosts, own)?;
    if is_git
        || is_json(origin.headers)
        || is_worker_record(origin)
        || is_own_form(origin)
        || !is_routed(origin.method)
    {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "a {} needs the header `Content-Type: application/json`, also without a body",
            origin.method
        ),
    ))
}

/// The hosts that a request names, in its address and its header. One of HTTP/1.0 may name none; no browser sends those.
fn hosts(origin: &RequestOrigin<'_>) -> Result<Vec<Authority>, ApiError> {
    let mut hosts: Vec<Authority> = origin.uri.authority().cloned().into_iter().collect();
    let named = origin.headers.get_all(header::HOST).iter();
    for value in named {
        let host = value.to_str().ok().and_then(|text| text.parse().ok());
        hosts.push(
            host.ok_or_else(|| ApiError::bad_request("the header `Host` is not a valid host"))?,
        );
    }
    Ok(hosts)
}

/// Whether any address has a handler for the method. The router answers all others with 405.
fn is_routed(method: &Method) -> bool {
    matches!(
        *method,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    )
}

/// Whether a worker sends records of its job. Handlers require its token, which no form has.
fn is_worker_record(origin: &RequestOrigin<'_>) -> bool {
    let kind = origin.headers.get(header::CONTENT_TYPE);
    origin.uri.path().starts_with("/internal/job/")
        && kind.is_some_and(|kind| kind == "application/octet-stream")
}

/// Whether it is a form of a page of this server. Its handler requires the token of the form, which no other site has.
fn is_own_form(origin: &RequestOrigin<'_>) -> bool {
    let kind = origin.headers.get(header::CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    let path = origin.uri.path();
    is_form
        && (matches!(
            path,
            "/login" | "/logout" | "/setup" | "/actions" | "/approval-link"
        ) || path.starts_with("/settings/"))
}

/// Whether a host is this machine as seen from itself, or the one of `--public-url`. Without a token the server listens on loopback
/// addresses only, so that no other address is its own.
fn is_own_host(host: &Authority, own: Option<&Authority>) -> bool {
    let name = |host: &Authority| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let name = name.strip_suffix('.').unwrap_or(name);
        name.to_ascii_lowercase()
    };
    let asked = name(host);
    if asked == "localhost" || asked.ends_with(".localhost") || own.map(name) == Some(asked.clone())
    {
        return true;
    }
    asked
        .parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Refuses what a browser says to come from a page of another site, or of another port of this one.
fn check_site(
    headers: &HeaderMap,
    hosts: &[Authority],
    own: Option<&Authority>,
) -> Result<(), ApiError> {
    let refused = |from: &str| {
        ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "pages of {from} may not change anything here: only this server's own pages and programs may"
            ),
        )
    };
    for site in headers.get_all("sec-fetch-site") {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(refused("another site"));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let authority = text
            .split_once("://")
            .and_then(|(_, rest)| rest.parse::<Authority>().ok());
        // An authority compares without case. Its scheme is not looked at: a TLS proxy in front changes it.
        let is_own = authority
            .is_some_and(|authority| hosts.contains(&authority) || Some(&authority) == own);
        if !is_own {
            return Err(refused(if text.is_empty() {
                "another site"
            } else {
                text
            }));
        }
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        return false;
    };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "http://127.0.0.1:7878";

    /// The status with which a request is refused; none when it is let through.
    fn refused(
        method: &str,
        uri: &str,
        headers: &[(&'static str, &str)],
        own: &str,
    ) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let origin = RequestOrigin {
            method: &method.parse().unwrap(),
            uri: &uri.parse().unwrap(),
            headers: &map,
        };
        check_origin(&origin, own, OriginProtection::ThisMachine)
            .err()
            .map(|it| it.0.status)
    }

    #[test]
    fn only_this_machine_and_the_public_address_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:7878",
            "localhost.:1",
            "shop.localhost:7878",
            "127.0.0.1:7878",
            "127.8.9.10",
            "[::1]:7878",
            "[::ffff:127.0.0.1]:7878",
            "ship.example",
            "SHIP.example.:8443",
        ] {
            let own = "https://ship.example/";
            assert_eq!(refused("GET", "/", &[("host", host)], own), None, "{host}");
        }
        for host in [
            "evil.example:7878",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "0.0.0.0:7878",
            "[::2]",
            "ship.example",
        ] {
            let headers = [("host", host)];
            assert_eq!(refused("GET", "/", &headers, OWN), Some(421), "{host}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(refused("GET", "/", &both, OWN), Some(421));
        let absolute = "http://evil.example/";
        let host = [("host", "localhost")];
        assert_eq!(refused("GET", absolute, &host, OWN), Some(421));
        assert_eq!(refused("GET", "/", &[("host", "a b")], OWN), Some(400));
        assert_eq!(refused("GET", "/", &[], OWN), None, "HTTP/1.0");
    }

    #[test]
    fn no_other_site_changes_anything() {
        let with = |method: &str, path: &str, more: (&'static str, &str), own: &str| {
            let json = ("content-type", "application/json");
            refused(method, path, &[("host", "127.0.0.1:7878"), json, more], own)
        };
        let path = "/api/v1/services/shop/deploys";
        for origin in ["http://127.0.0.1:7878", "HTTP://127.0.0.1:7878"] {
            assert_eq!(with("POST", path, ("origin", origin), OWN), None);
        }
        let public = "https://ship.example";
        assert_eq!(
            with("POST", path, ("origin", public), public),
            None,
            "behind a proxy"
        );
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:8080",
            "http://localhost:7878",
            "null",
            "",
            "http://127.0.0.1:7878.evil.example",
            "http://127.0.0.1:7878@evil.example",
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE", "ODD"] {
                let found = with(method, path, ("origin", origin), OWN);
                assert_eq!(found, Some(403), "{method} {origin:?}");
            }
            assert_eq!(with("GET", path, ("origin", origin), OWN), None);
        }
        for (site, expected) in [
            ("same-origin", None),
            ("none", None),
            ("same-site", Some(403)),
            ("cross-site", Some(403)),
            ("new-word", Some(403)),
        ] {
            assert_eq!(with("POST", path, ("sec-fetch-site", site), OWN), expected);
        }
        let first_push = "/git/new/info/refs?service=git-receive-pack";
        assert_eq!(
            with("GET", first_push, ("sec-fetch-site", "cross-site"), OWN),
            Some(403)
        );
        assert_eq!(
            with("GET", first_push, ("user-agent", "git/2.39.5"), OWN),
            None
        );
    }

    #[test]
    fn a_change_is_json_also_without_a_body() {
        let with = |kinds: &[&str]| {
            let kinds = kinds.iter().map(|kind| ("content-type", *kind));
            let headers: Vec<_> = [("host", "localhost")].into_iter().chain(kinds).collect();
            refused("POST", "/api/v1/rollouts/shop/2/approve", &headers, OWN)
        };
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(with(&[kind]), None, "{kind}");
        }
        for kinds in [
            &[][..],
            &["text/plain"],
            &["application/x-www-form-urlencoded"],
            &["text/plain;application/json"],
            &["application/json", "text/plain"],
        ] {
            assert_eq!(with(kinds), Some(415), "{kinds:?}");
        }
    }
}
