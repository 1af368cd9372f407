//! A JSON Web Token with a signature (RFC 7515, RFC 7519).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use shipway_core::identity_token::VerifiedClaims;

use super::verification_key::{KeySet, SignatureAlgorithm};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    /// It is not a token.
    #[error("it is not a signed JSON Web Token")]
    Malformed,
    /// Its algorithm is not accepted.
    #[error(
        "it is signed with {0:?}; RS, PS, ES (256, 384; RS and PS also 512) and EdDSA are accepted"
    )]
    Algorithm(String),
    /// Another key has signed it, or it was changed.
    #[error("its signature is wrong")]
    Signature,
    /// The key is not, or no longer, published.
    #[error("the provider has published no key {0:?} to verify it with")]
    UnknownKey(String),
}

#[derive(Debug, Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    /// Extensions that the receiver must understand; it understands none.
    crit: Option<Value>,
}

/// A token whose signature has not been verified yet.
pub struct SignedToken<'t> {
    header: TokenHeader,
    algorithm: SignatureAlgorithm,
    claims: Map<String, Value>,
    message: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> SignedToken<'t> {
    /// Whether a text has the form of such a token.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        // Every header is an object: base64url of `{"`.
        text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Reads a token.
    ///
    /// # Errors
    /// It is not a token, or has an algorithm that is not accepted.
    pub fn parse(text: &'t str) -> Result<Self, SignatureProblem> {
        let (message, signature) = text.rsplit_once('.').ok_or(SignatureProblem::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(SignatureProblem::Malformed)?;
        let decode = |part: &str| {
            let decoded = URL_SAFE_NO_PAD.decode(part);
            decoded.map_err(|_| SignatureProblem::Malformed)
        };
        let header: TokenHeader =
            serde_json::from_slice(&decode(header)?).map_err(|_| SignatureProblem::Malformed)?;
        let algorithm = SignatureAlgorithm::from_name(&header.alg)
            .ok_or_else(|| SignatureProblem::Algorithm(header.alg.chars().take(20).collect()))?;
        if header.crit.is_some() {
            return Err(SignatureProblem::Malformed);
        }
        let claims = serde_json::from_slice(&decode(claims)?);
        Ok(Self {
            header,
            algorithm,
            claims: claims.map_err(|_| SignatureProblem::Malformed)?,
            message: message.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// The issuer that it claims to be from: tells which keys to verify it with, and proves nothing.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The claims, when a key of the provider has signed them.
    pub(super) fn verify(&self, keys: &KeySet) -> Result<VerifiedClaims, SignatureProblem> {
        let id = self.header.kid.as_deref();
        let mut candidates = keys.candidates(id, &self.header.alg).peekable();
        if candidates.peek().is_none() {
            return Err(self.unknown_key());
        }
        let is_verified =
            candidates.any(|key| key.verifies(self.algorithm, self.message, &self.signature));
        match (is_verified, id) {
            (true, _) => Ok(VerifiedClaims::from_verified(self.claims.clone())),
            (false, Some(_)) => Err(SignatureProblem::Signature),
            // Without an id, a newer key may verify it.
            (false, None) => Err(self.unknown_key()),
        }
    }

    fn unknown_key(&self) -> SignatureProblem {
        let id = self.header.kid.as_deref().unwrap_or_default();
        SignatureProblem::UnknownKey(id.chars().take(80).collect())
    }
}
