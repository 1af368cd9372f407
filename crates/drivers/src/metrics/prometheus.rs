//! Prometheus: an instant query at a given time, over `/api/v1/query`. The response must have exactly one series with one
//! number.
//!
//! Source: Prometheus' HTTP API, "Instant queries" and "Format overview".

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    MetricUnavailable,
    http::{MetricHttpClient, MetricRequest},
    json,
};

const WHO: &str = "Prometheus";

pub(super) async fn query_prometheus(
    http: &MetricHttpClient,
    url: &str,
    query: &str,
    headers: &BTreeMap<String, String>,
    at: Timestamp,
    timeout: Duration,
) -> Result<f64, MetricUnavailable> {
    let asked = MetricRequest {
        who: WHO,
        method: "GET",
        url: &format!("{}/api/v1/query", url.trim_end_matches('/')),
        parameters: &[
            ("query", query.to_owned()),
            (
                "time",
                format!("{:.3}", at.as_millisecond() as f64 / 1000.0),
            ),
        ],
        headers,
        body: None,
    };
    let (status, answer) = http.fetch_json(&asked, timeout).await?;
    parse_response(status, &answer)
}

/// Reads the value from a response.
fn parse_response(status: u16, answer: &Value) -> Result<f64, MetricUnavailable> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    if text("status") != Some("success") {
        let why = text("error").unwrap_or("without a reason");
        return Err(MetricUnavailable::for_good(format!(
            "{WHO} refused the query ({status}): {}",
            shorten(why)
        )));
    }
    let warnings = answer.get("warnings").and_then(Value::as_array);
    if let Some(warning) = warnings.and_then(|warnings| warnings.first()) {
        let why = warning.as_str().unwrap_or("without a reason");
        return Err(MetricUnavailable::for_now(format!(
            "{WHO} warns that its result is partial: {}",
            shorten(why)
        )));
    }
    let data = answer.get("data");
    let result = data
        .and_then(|data| data.get("result"))
        .unwrap_or(&Value::Null);
    match data
        .and_then(|data| data.get("resultType"))
        .and_then(Value::as_str)
    {
        Some("scalar") => parse_sample(result),
        Some("vector") => match result.as_array().map(Vec::as_slice) {
            Some([]) => Err(MetricUnavailable::for_good(format!(
                "{WHO} has no series for the query"
            ))),
            Some([one]) => parse_sample(one.get("value").unwrap_or(&Value::Null)),
            Some(many) => Err(MetricUnavailable::for_good(format!(
                "the query returns {} series, but one is needed: aggregate them, for example with sum(…)",
                many.len()
            ))),
            None => Err(MetricUnavailable::for_good(format!(
                "{WHO} returned {} instead of series",
                json::json_type_name(result)
            ))),
        },
        Some(other) => Err(MetricUnavailable::for_good(format!(
            "the query returns a {other}, but a number is needed"
        ))),
        None => Err(MetricUnavailable::for_good(format!(
            "{WHO} sent an unexpected response"
        ))),
    }
}

/// `[<time>, "<number>"]`
fn parse_sample(point: &Value) -> Result<f64, MetricUnavailable> {
    let text = point.get(1).and_then(Value::as_str);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| MetricUnavailable::for_good(format!("{WHO} sent an unexpected response")))
}

fn shorten(why: &str) -> String {
    why.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(data: Value) -> Result<f64, String> {
        parse_response(200, &json!({ "status": "success", "data": data })).map_err(|no| no.why)
    }

    #[test]
    fn one_number_is_an_answer_and_nothing_else_is() {
        let series = |value: Value| json!({ "metric": {}, "value": [1.0, value] });
        let vector = |series: Value| json!({ "resultType": "vector", "result": series });
        assert_eq!(of(vector(json!([series(json!("0.25"))]))), Ok(0.25));
        assert_eq!(
            of(json!({ "resultType": "scalar", "result": [1.0, "3"] })),
            Ok(3.0)
        );
        assert!(
            of(vector(json!([series(json!("NaN"))]))).unwrap().is_nan(),
            "judged by who asks"
        );
        for (data, said) in [
            (vector(json!([])), "no series"),
            (
                vector(json!([series(json!("1")), series(json!("2"))])),
                "2 series, but one is needed",
            ),
            (vector(json!({})), "an object instead of series"),
            (vector(json!([series(json!(1))])), "unexpected response"),
            (
                vector(json!([series(json!("many"))])),
                "unexpected response",
            ),
            (
                json!({ "resultType": "matrix", "result": [] }),
                "returns a matrix",
            ),
            (
                json!({ "resultType": "string", "result": [1.0, "3"] }),
                "returns a string",
            ),
            (json!({}), "unexpected response"),
        ] {
            let why = of(data).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn warnings_and_refusals_are_told() {
        let partial = json!({ "status": "success", "warnings": ["store 2 is down"], "data": { "resultType": "scalar", "result": [1, "3"] } });
        let no = parse_response(200, &partial).unwrap_err();
        assert!(no.may_pass && no.why.contains("store 2 is down"), "{no:?}");
        let bad = json!({ "status": "error", "error": "parse error: unexpected end" });
        let no = parse_response(400, &bad).unwrap_err();
        assert!(
            !no.may_pass && no.why.contains("(400): parse error"),
            "{no:?}"
        );
    }
}
