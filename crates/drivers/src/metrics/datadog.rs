//! Datadog: the last point of a timeseries query, over `/api/v1/query`. The response must have exactly one series with a point.
//!
//! Source: Datadog's API reference, "Query timeseries points".

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    MetricUnavailable,
    http::{MetricHttpClient, MetricRequest},
};

const WHO: &str = "Datadog";

/// API credentials.
pub(super) struct DatadogKeys<'a> {
    pub(super) api: &'a str,
    pub(super) app: &'a str,
}

pub(super) async fn query_datadog(
    http: &MetricHttpClient,
    site: &str,
    query: &str,
    keys: &DatadogKeys<'_>,
    (at, window): (Timestamp, Duration),
    timeout: Duration,
) -> Result<f64, MetricUnavailable> {
    let address = if site.contains("://") {
        site.trim_end_matches('/').to_owned()
    } else {
        format!("https://api.{site}")
    };
    let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
    let headers = BTreeMap::from([
        ("DD-API-KEY".to_owned(), keys.api.to_owned()),
        ("DD-APPLICATION-KEY".to_owned(), keys.app.to_owned()),
    ]);
    let asked = MetricRequest {
        who: WHO,
        method: "GET",
        url: &format!("{address}/api/v1/query"),
        parameters: &[
            ("from", at.as_second().saturating_sub(window).to_string()),
            ("to", at.as_second().to_string()),
            ("query", query.to_owned()),
        ],
        headers: &headers,
        body: None,
    };
    let (status, answer) = http.fetch_json(&asked, timeout).await?;
    parse_response(status, &answer)
}

/// Reads the value from a response.
fn parse_response(status: u16, answer: &Value) -> Result<f64, MetricUnavailable> {
    let refusal = answer
        .get("error")
        .or_else(|| answer.get("errors"))
        .filter(|it| !it.is_null());
    if let Some(error) = refusal
        .filter(|it| it.as_str() != Some("") && it.as_array().is_none_or(|it| !it.is_empty()))
    {
        let why: String = error
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned)
            .chars()
            .take(200)
            .collect();
        return Err(MetricUnavailable::for_good(format!(
            "{WHO} refused the query ({status}): {why}"
        )));
    }
    let series = answer.get("series").and_then(Value::as_array);
    let one = match series.map(Vec::as_slice) {
        Some([]) => {
            return Err(MetricUnavailable::for_good(format!(
                "{WHO} has no series for the query"
            )));
        }
        Some([one]) => one,
        Some(many) => {
            return Err(MetricUnavailable::for_good(format!(
                "the query returns {} series, but one is needed: aggregate them, for example with sum:…",
                many.len()
            )));
        }
        None => {
            return Err(MetricUnavailable::for_good(format!(
                "{WHO} sent an unexpected response ({status})"
            )));
        }
    };
    let points = one.get("pointlist").and_then(Value::as_array);
    let points = points
        .ok_or_else(|| MetricUnavailable::for_good(format!("{WHO} sent an unexpected response")))?;
    // The last interval may not have a value yet.
    let last = points
        .iter()
        .rev()
        .filter_map(|point| point.get(1))
        .find(|value| !value.is_null());
    last.ok_or_else(|| MetricUnavailable::for_good(format!("{WHO} has no point in the window")))?
        .as_f64()
        .ok_or_else(|| MetricUnavailable::for_good(format!("{WHO} sent an unexpected response")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_point_of_one_series_is_an_answer_and_nothing_else_is() {
        let of = |answer: Value| parse_response(200, &answer).map_err(|no| no.why);
        let series = |points: Value| json!({ "status": "ok", "series": [{ "pointlist": points }] });
        assert_eq!(of(series(json!([[1, 5.0], [2, 7.5], [3, null]]))), Ok(7.5));
        for (answer, said) in [
            (series(json!([])), "no point"),
            (series(json!([[1, null]])), "no point"),
            (series(json!([[1, "x"]])), "unexpected response"),
            (json!({ "series": [] }), "no series"),
            (json!({ "series": [{}, {}] }), "2 series"),
            (json!({ "errors": ["Forbidden"] }), "Forbidden"),
            (
                json!({ "status": "error", "error": "Error parsing query" }),
                "Error parsing query",
            ),
            (json!([]), "unexpected response"),
        ] {
            let why = of(answer).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
