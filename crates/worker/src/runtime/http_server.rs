//! The HTTP server of the endpoints: authentication and routing.

use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    header::{self, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::mpsc,
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use super::{
    RuntimeEndpoints,
    artifact_service::ArtifactService,
    cache_service::CacheService,
    request_address::{ACCOUNT, RequestAddress},
    runtime_secret::RuntimeSecret,
    signed_blobs::{self, BlobResponseError, SignedBlobs},
    twirp::{TwirpCode, TwirpError},
};
use crate::file_hash;

/// Limit for the body of a call, which contains only names and numbers.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Limit for concurrent connections: the toolkit opens dozens; more have to wait.
const CONNECTIONS_MAX: usize = 256;
/// Timeout for a request's head.
const HEAD: Duration = Duration::from_secs(30);

type ResponseBody = BoxBody<Bytes, io::Error>;

pub(super) struct EndpointServices {
    token: RuntimeSecret,
    blobs: Arc<SignedBlobs>,
    artifacts: Arc<ArtifactService>,
    caches: Arc<CacheService>,
}

impl EndpointServices {
    pub(super) fn new(runtime: &RuntimeEndpoints, token: RuntimeSecret) -> Self {
        let scratch = &runtime.scratch;
        let blobs = Arc::new(SignedBlobs::new(scratch.join("uploads")));
        let artifacts = ArtifactService::new(
            runtime.artifact_store.clone(),
            Arc::clone(&blobs),
            (runtime.artifacts.clone(), scratch.join("zips")),
            runtime.ids.clone(),
        );
        let caches = CacheService::new(
            runtime.caches.clone(),
            Arc::clone(&blobs),
            scratch.join("caches"),
        );
        Self {
            token,
            blobs,
            artifacts: Arc::new(artifacts),
            caches: Arc::new(caches),
        }
    }
}

/// Serves until `stop` is cancelled: the main function of the thread.
pub(super) fn serve_until_stopped(
    mut listeners: mpsc::Receiver<TcpListener>,
    services: EndpointServices,
    stop: CancellationToken,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    let services = Arc::new(services);
    runtime.block_on(stop.run_until_cancelled(async {
        while let Some(listener) = listeners.recv().await {
            tokio::spawn(accept_connections(listener, Arc::clone(&services)));
        }
        std::future::pending::<()>().await;
    }));
    // The job has ended, and so have its clients.
    runtime.shutdown_background();
}

async fn accept_connections(listener: TcpListener, services: Arc<EndpointServices>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Probably EMFILE: back off until descriptors are freed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let services = Arc::clone(&services);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let services = Arc::clone(&services);
                async move { Ok::<_, std::convert::Infallible>(services.handle_request(request).await) }
            });
            let mut server = http1::Builder::new();
            let server = server.timer(TokioTimer::new()).header_read_timeout(HEAD);
            // Ignore errors: the client has disconnected.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

impl EndpointServices {
    async fn handle_request(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let steps: Vec<&str> = path.split('/').collect();
        match steps.as_slice() {
            ["twirp", service, method] => match self.handle_twirp_call(service, method, request).await {
                Ok(answer) => json_response(200, answer),
                Err(TwirpError { code, msg }) => {
                    let body = serde_json::json!({ "code": code.as_str(), "msg": msg });
                    json_response(code.http_status(), body.to_string().into_bytes())
                }
            },
            [ACCOUNT, _, id] => {
                let id = id.parse().unwrap_or(u64::MAX);
                let done = self.handle_blob_request(id, request).await;
                done.unwrap_or_else(|refusal| blob_error_response(&refusal))
            }
            _ => json_response(
                404,
                br#"{"code":"bad_route","msg":"Shipway serves artifacts and caches here, in the versions of actions/upload-artifact@v4 and actions/cache@v4"}"#
                    .to_vec(),
            ),
        }
    }

    async fn handle_twirp_call(
        &self,
        service: &str,
        method: &str,
        request: Request<Incoming>,
    ) -> Result<Vec<u8>, TwirpError> {
        let shown = request.headers().get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.split_once(' '));
        if !shown.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && self.token.matches(token.trim())
        }) {
            let why = "the token is not the one of this job: it is in ACTIONS_RUNTIME_TOKEN";
            return Err(TwirpError::new(TwirpCode::Unauthenticated, why));
        }
        if request.method() != Method::POST {
            return Err(TwirpError::new(
                TwirpCode::BadRoute,
                "calls are made with POST",
            ));
        }
        let address = RequestAddress::from_headers(request.headers());
        let body = Limited::new(request.into_body(), CALL_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| TwirpError::new(TwirpCode::Malformed, error.to_string()))?
            .to_bytes();
        match service {
            "github.actions.results.api.v1.ArtifactService" => {
                self.artifacts.handle_call(method, &body, &address).await
            }
            "github.actions.results.api.v1.CacheService" => {
                self.caches.handle_call(method, &body, &address).await
            }
            _ => Err(TwirpError::new(
                TwirpCode::BadRoute,
                format!("no such service: {service}"),
            )),
        }
    }

    /// Handles a request to the blob storage.
    async fn handle_blob_request(
        &self,
        id: u64,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, BlobResponseError> {
        let query = parse_query(request.uri().query().unwrap_or_default());
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let signature = get("sig");
        match (request.method().clone(), get("comp")) {
            (Method::PUT, "") => {
                self.blobs
                    .store_blob(id, signature, request.into_body())
                    .await?;
                Ok(created_response())
            }
            (Method::PUT, "block") => {
                let block = get("blockid");
                let body = request.into_body();
                self.blobs.store_block(id, signature, block, body).await?;
                Ok(created_response())
            }
            (Method::PUT, "blocklist") => {
                self.blobs
                    .store_block_list(id, signature, request.into_body())
                    .await?;
                Ok(created_response())
            }
            (method @ (Method::GET | Method::HEAD), "") => {
                let path = self.blobs.readable_path(id, signature)?;
                send_file(&path, &method, request.headers()).await
            }
            _ => {
                let why = "only GET, HEAD and PUT are supported";
                Err(BlobResponseError::new(405, "UnsupportedHttpVerb", why))
            }
        }
    }
}

/// Parses and decodes a query string.
fn parse_query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), percent_decode(value)))
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a file, or the requested range.
async fn send_file(
    path: &Path,
    method: &Method,
    asked: &HeaderMap,
) -> Result<Response<ResponseBody>, BlobResponseError> {
    let mut file = tokio::fs::File::open(path).await?;
    let found = file.metadata().await?;
    let length = found.len();
    let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let etag = etag(path, length, modified);
    if let Some(wanted) = asked.get(header::IF_MATCH)
        && wanted.as_bytes() != b"*"
        && wanted.as_bytes() != etag.as_bytes()
    {
        let why = "the file has changed";
        return Err(BlobResponseError::new(412, "ConditionNotMet", why));
    }
    let range = asked.get("x-ms-range").or_else(|| asked.get(header::RANGE));
    let range = signed_blobs::parse_range(range.and_then(|range| range.to_str().ok()), length)?;
    let (from, count) = range.map_or((0, length), |(from, to)| (from, to - from + 1));
    let mut response = Response::builder()
        .status(if range.is_some() { 206 } else { 200 })
        .header(header::CONTENT_LENGTH, count)
        .header(header::CONTENT_TYPE, content_type(path))
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, etag)
        .header(header::LAST_MODIFIED, http_date(modified))
        .header("x-ms-blob-type", "BlockBlob")
        .header("x-ms-version", "2024-11-04");
    if let Some((from, to)) = range {
        response = response.header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{length}"));
    }
    let body = if *method == Method::HEAD {
        text_body(Vec::new())
    } else {
        file.seek(io::SeekFrom::Start(from)).await?;
        let stream = ReaderStream::with_capacity(file.take(count), 128 * 1024);
        StreamBody::new(stream.map_ok(Frame::data)).boxed()
    };
    Ok(response.body(body).expect("these headers are sound"))
}

fn content_type(path: &Path) -> &'static str {
    if path.extension().is_some_and(|it| it == "zip") {
        "application/zip"
    } else {
        "application/octet-stream"
    }
}

fn etag(path: &Path, length: u64, modified: SystemTime) -> String {
    let text = format!("{}\n{length}\n{modified:?}", path.display());
    format!(
        "\"0x{}\"",
        file_hash::to_hex(&Sha256::digest(text)[..8]).to_uppercase()
    )
}

/// `Wed, 21 Oct 2026 07:28:00 GMT`
fn http_date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Azure's response to a successful write.
fn created_response() -> Response<ResponseBody> {
    let now = SystemTime::now();
    Response::builder()
        .status(201)
        .header(header::CONTENT_LENGTH, 0)
        .header(header::ETAG, etag(Path::new(""), 0, now))
        .header(header::LAST_MODIFIED, http_date(now))
        .header("x-ms-request-server-encrypted", "false")
        .header("x-ms-version", "2024-11-04")
        .body(text_body(Vec::new()))
        .expect("these headers are sound")
}

fn blob_error_response(refusal: &BlobResponseError) -> Response<ResponseBody> {
    let BlobResponseError { status, code, why } = refusal;
    let why = why.replace('&', "&amp;").replace('<', "&lt;");
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{why}</Message></Error>"
    );
    Response::builder()
        .status(*status)
        .header(header::CONTENT_TYPE, "application/xml")
        .header("x-ms-error-code", *code)
        .body(text_body(body.into_bytes()))
        .expect("these headers are sound")
}

fn json_response(status: u16, body: Vec<u8>) -> Response<ResponseBody> {
    let mut response = Response::new(text_body(body));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text_body(bytes: Vec<u8>) -> ResponseBody {
    let full = Full::new(Bytes::from(bytes));
    full.map_err(|never| match never {}).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = parse_query("comp=block&blockid=YW%2FiPQ%3D%3D&sig=a+b%2&x");
        assert_eq!(query["comp"], "block");
        assert_eq!(query["blockid"], "YW/iPQ==");
        assert_eq!(query["sig"], "a+b%2");
        assert_eq!(query.len(), 3);
    }

    #[test]
    fn times_are_in_the_form_of_http() {
        assert_eq!(
            http_date(SystemTime::UNIX_EPOCH),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }
}
