//! One HTTP request to an instance, on its own connection.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use shipway_core::check::ProbeAnswer;

use super::{CheckError, InstanceAddress};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Sends the request and reads up to `body_bytes_max` of the response.
pub(super) async fn send_request(
    instance: InstanceAddress<'_>,
    mut request: Request<Full<Bytes>>,
    timeout: Duration,
    body_bytes_max: usize,
) -> Result<ProbeAnswer, CheckError> {
    let address = instance.address;
    let headers = request.headers_mut();
    if !headers.contains_key(header::HOST) {
        let host = header::HeaderValue::from_str(instance.host.unwrap_or(address));
        headers.insert(
            header::HOST,
            host.map_err(|error| CheckError::Request(error.to_string()))?,
        );
    }
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("close"),
    );
    let begun = Instant::now();
    match tokio::time::timeout(timeout, exchange_once(address, request, body_bytes_max)).await {
        Ok(answer) => answer.map(|answer| ProbeAnswer {
            took: begun.elapsed(),
            ..answer
        }),
        Err(_) => Err(no_answer(address, timeout)),
    }
}

/// Opens a connection.
pub(super) async fn connect(address: &str) -> Result<TcpStream, CheckError> {
    TcpStream::connect(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => CheckError::Refused(address.to_owned()),
            _ => CheckError::Connect {
                address: address.to_owned(),
                error: error.to_string(),
            },
        })
}

pub(super) fn no_answer(address: &str, timeout: Duration) -> CheckError {
    CheckError::NoAnswer {
        address: address.to_owned(),
        timeout,
    }
}

async fn exchange_once(
    address: &str,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<ProbeAnswer, CheckError> {
    let stream = connect(address).await?;
    let broken = |error: hyper::Error| CheckError::BrokenOff {
        address: address.to_owned(),
        cause: root_cause(&error),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Aborted when this request ends.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status().as_u16();
    let headers = header_texts(answer.headers());
    let body = read_body(answer.into_body(), body_bytes_max)
        .await
        .map_err(broken)?;
    Ok(ProbeAnswer {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        took: Duration::ZERO,
    })
}

/// The source of a hyper error describes the instance's failure.
fn root_cause(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

async fn read_body(mut body: Incoming, bytes_max: usize) -> Result<BytesMut, hyper::Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() >= bytes_max {
            read.truncate(bytes_max);
            break;
        }
    }
    Ok(read)
}

fn header_texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        texts
            .entry(name.as_str().to_owned())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    texts
}
