//! What a webhook presents, and whether it is right. The body is not parsed before.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use shipway_core::forge::ForgeKind;
use subtle::ConstantTimeEq as _;

/// Bytes of an HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// Characters of a delivery id at most; forges send UUIDs.
const ID_CHARS_MAX: usize = 100;

/// What a webhook presents to prove that the forge sent it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SentSignature {
    /// GitHub and Gitea sign the body.
    Mac([u8; MAC_BYTES]),
    /// GitLab sends the secret itself.
    Token(Vec<u8>),
}

/// The headers of a webhook. No signature covers them.
#[derive(Clone)]
pub(crate) struct WebhookHeaders {
    /// The kind of event, in the forge's words.
    pub(crate) event: String,
    /// The forge's id of the delivery.
    pub(crate) id: String,
    pub(crate) signature: SentSignature,
}

/// A header that is missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebhookHeaderError {
    #[error("the header {0} is missing: enter a secret for the webhook at the forge")]
    NoSignature(&'static str),
    #[error("the header {0} is not a signature: sha256= and 64 hexadecimal digits")]
    Malformed(&'static str),
    #[error("the header {0} is missing")]
    NoEvent(&'static str),
}

impl WebhookHeaders {
    pub(crate) fn read(forge: ForgeKind, headers: &HeaderMap) -> Result<Self, WebhookHeaderError> {
        let find = |names: &[&'static str]| {
            let mut names = names.iter();
            names.find_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)))
        };
        let (signatures, events, ids): (&[&'static str], &[&'static str], &[&'static str]) =
            match forge {
                ForgeKind::Github => (
                    &["X-Hub-Signature-256"],
                    &["X-GitHub-Event"],
                    &["X-GitHub-Delivery"],
                ),
                ForgeKind::Gitea => (
                    &[
                        "X-Forgejo-Signature",
                        "X-Gitea-Signature",
                        "X-Hub-Signature-256",
                    ],
                    &["X-Forgejo-Event", "X-Gitea-Event"],
                    &["X-Forgejo-Delivery", "X-Gitea-Delivery"],
                ),
                ForgeKind::Gitlab => (
                    &["X-Gitlab-Token"],
                    &["X-Gitlab-Event"],
                    &[
                        "Idempotency-Key",
                        "X-Gitlab-Event-UUID",
                        "X-Gitlab-Webhook-UUID",
                    ],
                ),
            };
        let signature = find(signatures);
        let (name, sent) = signature.ok_or(WebhookHeaderError::NoSignature(signatures[0]))?;
        let signature = match forge {
            ForgeKind::Gitlab => SentSignature::Token(sent.as_bytes().to_vec()),
            ForgeKind::Github | ForgeKind::Gitea => {
                let mac = parse_mac(sent).ok_or(WebhookHeaderError::Malformed(name))?;
                SentSignature::Mac(mac)
            }
        };
        let (_, event) = find(events).ok_or(WebhookHeaderError::NoEvent(events[0]))?;
        let id = find(ids).map_or("", |it| it.1);
        Ok(Self {
            event: event.to_owned(),
            id: id
                .chars()
                .filter(char::is_ascii_graphic)
                .take(ID_CHARS_MAX)
                .collect(),
            signature,
        })
    }
}

impl SentSignature {
    /// Whether the holder of this secret sent this body.
    pub(crate) fn is_valid(&self, secret: &[u8], body: &[u8]) -> bool {
        match self {
            Self::Mac(sent) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key has any length");
                mac.update(body);
                bool::from(mac.finalize().into_bytes().as_slice().ct_eq(sent))
            }
            Self::Token(sent) => bool::from(sent.as_slice().ct_eq(secret)),
        }
    }
}

fn parse_mac(text: &str) -> Option<[u8; MAC_BYTES]> {
    let hex = text.strip_prefix("sha256=").unwrap_or(text).as_bytes();
    if hex.len() != 2 * MAC_BYTES {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    let mut mac = [0; MAC_BYTES];
    for (byte, pair) in mac.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const MAC: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn read(
        forge: ForgeKind,
        pairs: &[(&'static str, &str)],
    ) -> Result<WebhookHeaders, WebhookHeaderError> {
        WebhookHeaders::read(forge, &headers(pairs))
    }

    #[test]
    fn a_signature_holds_for_its_body_and_its_secret_alone() {
        let signature = format!("sha256={MAC}");
        let github = [
            ("X-Hub-Signature-256", signature.as_str()),
            ("X-GitHub-Event", "push"),
        ];
        let gitea = [("X-Gitea-Signature", MAC), ("X-Gitea-Event", "push")];
        for read in [
            read(ForgeKind::Github, &github),
            read(ForgeKind::Gitea, &gitea),
        ] {
            let signature = read.unwrap().signature;
            assert!(signature.is_valid(SECRET, BODY));
            assert!(!signature.is_valid(SECRET, b"Hello, World?"));
            assert!(!signature.is_valid(b"It's a secret to everybody", BODY));
            assert!(!signature.is_valid(b"", BODY));
        }
        let gitlab = [
            ("X-Gitlab-Token", "a token"),
            ("X-Gitlab-Event", "Push Hook"),
        ];
        let signature = read(ForgeKind::Gitlab, &gitlab).unwrap().signature;
        assert!(signature.is_valid(b"a token", BODY));
        assert!(!signature.is_valid(b"a token ", BODY));
        assert!(!signature.is_valid(b"", BODY));
    }

    #[test]
    fn missing_and_malformed_headers_are_named() {
        let error = |pairs: &[(&'static str, &str)]| read(ForgeKind::Github, pairs).err().unwrap();
        let event = ("X-GitHub-Event", "push");
        assert_eq!(
            error(&[event]),
            WebhookHeaderError::NoSignature("X-Hub-Signature-256")
        );
        for wrong in [
            "",
            "sha256=",
            "sha256=zz",
            &format!("sha1={MAC}"),
            &MAC.replace('7', "é"),
        ] {
            let refused = error(&[event, ("X-Hub-Signature-256", wrong)]);
            assert!(
                matches!(
                    refused,
                    WebhookHeaderError::Malformed(_) | WebhookHeaderError::NoSignature(_)
                ),
                "{wrong}"
            );
        }
        let sent = ("X-Hub-Signature-256", MAC);
        assert_eq!(
            error(&[sent]),
            WebhookHeaderError::NoEvent("X-GitHub-Event")
        );
        let forgejo_first = [
            (
                "X-Forgejo-Signature",
                "0000000000000000000000000000000000000000000000000000000000000000",
            ),
            ("X-Gitea-Signature", MAC),
            ("X-Gitea-Event", "push"),
        ];
        let headers = read(ForgeKind::Gitea, &forgejo_first).unwrap();
        assert!(
            !headers.signature.is_valid(SECRET, BODY),
            "a wrong one is not rescued by another"
        );
    }
}
