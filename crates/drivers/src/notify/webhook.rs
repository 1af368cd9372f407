//! The generic webhook: the notification as JSON, signed if there is a key.
//!
//! Two signatures, for receivers of either kind: that of Standard Webhooks over id, time of the attempt and body, by which a receiver can
//! reject repetitions and old requests; and `X-Shipway-Signature: sha256=`, the hex HMAC-SHA256 of the body alone, like GitHub's.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use shipway_core::outbox::{AttemptFailure, OutboxMessage};

use super::{
    Notification, read_notification, read_settings,
    webhook_client::{WebhookClient, WebhookRequest, header_safe, host, parse_address},
};
use crate::outbox::{OutboxDestination, permanent_failure};

/// The start of a key that is written in base64, as Standard Webhooks have it.
const BASE64_KEY: &str = "whsec_";

/// A receiver of Shipway's JSON.
pub(super) struct WebhookDestination(pub(super) WebhookClient);

#[derive(Deserialize)]
struct WebhookSettings {
    url: String,
    /// Signs each body.
    #[serde(default)]
    secret: Option<String>,
}

#[async_trait]
impl OutboxDestination for WebhookDestination {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    async fn deliver(
        &self,
        settings: &Value,
        message: &OutboxMessage,
    ) -> Result<String, AttemptFailure> {
        let settings: WebhookSettings = read_settings(settings)?;
        let address = parse_address(&settings.url).map_err(permanent_failure)?;
        let body = webhook_body(&read_notification(message)?);
        let mut headers = Vec::new();
        if let Some(secret) = settings.secret.filter(|it| !it.is_empty()) {
            let now = Timestamp::now().as_second();
            headers = signature_headers(&secret, &message.id, now, &body);
        }
        let request = WebhookRequest {
            name: format!("the webhook at {}", host(&address)),
            address,
            delivery: message.id.clone(),
            headers,
            body,
        };
        Ok(self.0.post(request).await?)
    }
}

/// The JSON: the fields of [`Notification`], with `facts` as a list of objects so that names may repeat.
fn webhook_body(notification: &Notification) -> Vec<u8> {
    let mut value =
        serde_json::to_value(notification).expect("strings and numbers always serialise");
    let facts: Vec<_> = notification
        .facts
        .iter()
        .map(|(name, value)| serde_json::json!({ "name": name, "value": value }))
        .collect();
    value["facts"] = facts.into();
    serde_json::to_vec(&value).expect("a JSON value always serialises")
}

/// The headers that sign a body at a moment, in seconds since 1970.
fn signature_headers(secret: &str, id: &str, now: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let id = header_safe(id);
    let key = secret.strip_prefix(BASE64_KEY);
    let key = key.and_then(|key| STANDARD.decode(key).ok());
    let key = key.unwrap_or_else(|| secret.as_bytes().to_vec());
    let signed = sign(&key, &[format!("{id}.{now}.").as_bytes(), body]);
    let hex = sign(secret.as_bytes(), &[body]);
    let hex: String = hex.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        ("webhook-id", id),
        ("webhook-timestamp", now.to_string()),
        (
            "webhook-signature",
            format!("v1,{}", STANDARD.encode(signed)),
        ),
        ("X-Shipway-Signature", format!("sha256={hex}")),
    ]
}

fn sign(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231_and_of_standard_webhooks() {
        let header = |secret, id, now, body: &[u8], name| {
            let headers = signature_headers(secret, id, now, body);
            headers.into_iter().find(|it| it.0 == name).unwrap().1
        };
        let plain = |secret, body| header(secret, "", 0, body, "X-Shipway-Signature");
        assert_eq!(
            plain("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            plain("It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        // The example of the specification of Standard Webhooks.
        assert_eq!(
            header(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
                "webhook-signature"
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn the_body_is_the_notification() {
        let body: serde_json::Value =
            serde_json::from_slice(&webhook_body(&super::super::tests::rolled_back())).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "id": "rollout/shop/7#notify-1",
                "title": "shop #3 was rolled back in production",
                "text": "error-rate was 5.2% <of 10%>, at most 1% is allowed & wanted.",
                "severity": "bad",
                "service": "shop",
                "environment": "production",
                "release": 3,
                "rollout": 7,
                "url": "http://127.0.0.1:7878/rollouts/shop/ro7",
                "at": "2026-03-04T05:06:07Z",
                "plot": "error-rate: ▁▃▆█ 5.2% on #3, ▁▁▁▁ 0.1% on #2, limit 1%",
                "facts": [{ "name": "back on", "value": "#2" }, { "name": "took", "value": "84 ms" }]
            })
        );
    }
}
