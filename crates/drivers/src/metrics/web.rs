//! Any JSON over HTTP: the number at a path. The status must be 200 to 299.

use std::{collections::BTreeMap, time::Duration};

use super::{
    MetricUnavailable,
    http::{MetricHttpClient, MetricRequest},
    json::number_at,
};

const WHO: &str = "the web provider";

/// A request to the web provider.
pub(super) struct WebRequest<'a> {
    pub(super) url: &'a str,
    pub(super) method: &'a str,
    pub(super) headers: &'a BTreeMap<String, String>,
    pub(super) body: Option<&'a str>,
}

pub(super) async fn query_web(
    http: &MetricHttpClient,
    request: &WebRequest<'_>,
    path: &str,
    timeout: Duration,
) -> Result<f64, MetricUnavailable> {
    let asked = MetricRequest {
        who: WHO,
        method: request.method,
        url: request.url,
        parameters: &[],
        headers: request.headers,
        body: request.body,
    };
    let (status, answer) = http.fetch_json(&asked, timeout).await?;
    if !(200..300).contains(&status) {
        return Err(MetricUnavailable::for_good(format!(
            "{WHO} responded with {status}"
        )));
    }
    number_at(&answer, path, WHO)
}
