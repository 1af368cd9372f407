//! One HTTP request to an instance, on a connection of its own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shipway_core::check::Answer;
use tokio::net::TcpStream;

/// Asks, and reads up to `body_max` bytes of the answer. The error is a sentence for people.
pub(crate) async fn ask(
    address: &str,
    request: Request<Full<Bytes>>,
    timeout: Duration,
    body_max: usize,
) -> Result<Answer, String> {
    let begun = Instant::now();
    match tokio::time::timeout(timeout, exchange(address, request, body_max)).await {
        Ok(answer) => answer.map(|(status, headers, body)| Answer {
            status,
            headers,
            body,
            took: begun.elapsed(),
        }),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn exchange(
    address: &str,
    request: Request<Full<Bytes>>,
    body_max: usize,
) -> Result<(u16, BTreeMap<String, String>, String), String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => format!("nothing listens on {address}"),
            _ => format!("{address}: {error}"),
        })?;
    let broken = |error: hyper::Error| format!("{address} broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status().as_u16();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect();
    let mut body = answer.into_body();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > body_max {
            read.truncate(body_max);
            break;
        }
    }
    connection.abort();
    Ok((status, headers, String::from_utf8_lossy(&read).into_owned()))
}
