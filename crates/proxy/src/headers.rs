//! What a proxy takes off requests and answers, and what it adds.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The protocol a client wants to change to, if it asks properly.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Takes off what is meant for one connection only (RFC 9110, 7.6.1), and what `Connection` names besides.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| token.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    // `TE: trailers` is the only coding that may be passed on.
    if headers
        .get(TE)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        headers.remove(TE);
    }
}

/// Says who asked, for what host, and gives the request a name to be found by.
pub(crate) fn add_forwarding(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: &str,
    prefix: Option<&str>,
    random: impl Fn() -> u64,
) {
    let address = client.to_string();
    let chain = match headers
        .get(FORWARDED_FOR)
        .and_then(|value| value.to_str().ok())
    {
        Some(before) => format!("{before}, {address}"),
        None => address,
    };
    put(headers, FORWARDED_FOR, &chain);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    put(headers, FORWARDED_HOST, host);
    if let Some(prefix) = prefix {
        put(headers, FORWARDED_PREFIX, prefix);
    }
    if !headers.contains_key(REQUEST_ID) {
        put(
            headers,
            REQUEST_ID,
            &format!("{:016x}{:016x}", random(), random()),
        );
    }
    if !headers.contains_key(TRACEPARENT) {
        // An id of zeros is invalid.
        put(
            headers,
            TRACEPARENT,
            &format!(
                "00-{:016x}{:016x}-{:016x}-01",
                random(),
                random() | 1,
                random() | 1
            ),
        );
    }
    if !headers.contains_key(HOST) {
        put(headers, HOST, host);
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("x-kept", "1"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-kept"]
        );
    }

    #[test]
    fn the_chain_of_clients_grows_and_ids_are_kept() {
        let mut headers = HeaderMap::from_iter([
            (FORWARDED_FOR, "10.0.0.1".parse().unwrap()),
            (REQUEST_ID, "mine".parse().unwrap()),
        ]);
        add_forwarding(
            &mut headers,
            IpAddr::from([127, 0, 0, 1]),
            "shop.example.com",
            Some("/shop"),
            || 7,
        );
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, 127.0.0.1");
        assert_eq!(headers[REQUEST_ID], "mine");
        assert_eq!(headers[FORWARDED_PREFIX], "/shop");
        assert!(headers[TRACEPARENT].to_str().unwrap().starts_with("00-"));
    }
}
