//! The generic webhook: the notification as JSON, signed if there is a key.
//!
//! The signature is `X-Shipway-Signature: sha256=` and the hex HMAC-SHA256 of the exact bytes of the body, like GitHub's. The
//! body contains id and time, so a receiver can reject duplicates and old notifications.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Notification;

/// The signature header.
pub(super) const SIGNATURE: &str = "X-Shipway-Signature";

/// The JSON: the fields of [`Notification`], with `facts` as a list of objects so that names may repeat.
pub(super) fn webhook_body(notification: &Notification) -> Vec<u8> {
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

/// The value of [`SIGNATURE`] for these bytes.
pub(super) fn sign_body(secret: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        assert_eq!(
            sign_body("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            sign_body("It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
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
