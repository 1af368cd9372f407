//! Public keys of a provider (RFC 7517), and the signatures that they verify (RFC 7518).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

/// Keys of a provider at most.
const KEYS_MAX: usize = 100;

/// An algorithm that tokens may be signed with. There is none with a shared secret.
#[derive(Clone, Copy, Debug)]
pub(super) enum SignatureAlgorithm {
    Rsa(&'static RsaParameters),
    Elliptic(&'static str),
    Ed25519,
}

impl SignatureAlgorithm {
    /// The algorithm with a name of RFC 7518 or RFC 8037.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Elliptic("P-256"),
            "ES384" => Self::Elliptic("P-384"),
            "EdDSA" | "Ed25519" => Self::Ed25519,
            _ => return None,
        })
    }
}

/// A key as the provider publishes it.
#[derive(Debug, Deserialize)]
struct PublishedKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The public part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyMaterial {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The curve, and the point without compression.
    Elliptic(&'static str, Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VerificationKey {
    id: Option<String>,
    /// The only algorithm that it is for, if the provider restricts it.
    algorithm: Option<String>,
    material: KeyMaterial,
}

/// The keys of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet(Vec<VerificationKey>);

impl KeySet {
    /// The keys of a document that can verify signatures; others are skipped.
    pub(super) fn from_published(keys: Vec<serde_json::Value>) -> Self {
        let keys = keys.into_iter().take(KEYS_MAX).filter_map(|key| {
            let key: PublishedKey = serde_json::from_value(key).ok()?;
            VerificationKey::from_published(key)
        });
        Self(keys.collect())
    }

    /// The keys that a token may be signed with.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm_name: &str,
    ) -> impl Iterator<Item = &VerificationKey> {
        self.0.iter().filter(move |key| {
            let is_named = id.is_none() || key.id.as_deref() == id;
            let own = key.algorithm.as_deref();
            is_named && own.is_none_or(|own| own == algorithm_name)
        })
    }
}

impl VerificationKey {
    fn from_published(key: PublishedKey) -> Option<Self> {
        if key.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let material = match (key.kty.as_str(), key.crv.as_deref()) {
            ("RSA", _) => KeyMaterial::Rsa {
                modulus: decode(&key.n)?,
                exponent: decode(&key.e)?,
            },
            ("EC", Some("P-256")) => elliptic("P-256", 32, &decode(&key.x)?, &decode(&key.y)?)?,
            ("EC", Some("P-384")) => elliptic("P-384", 48, &decode(&key.x)?, &decode(&key.y)?)?,
            ("OKP", Some("Ed25519")) => KeyMaterial::Ed25519(decode(&key.x)?),
            _ => return None,
        };
        Some(Self {
            id: key.kid,
            algorithm: key.alg,
            material,
        })
    }

    /// Whether it has signed a message with an algorithm.
    pub(super) fn verifies(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let verifies = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key)
                .verify(message, signature)
                .is_ok()
        };
        match (algorithm, &self.material) {
            (SignatureAlgorithm::Rsa(parameters), KeyMaterial::Rsa { modulus, exponent }) => {
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                key.verify(parameters, message, signature).is_ok()
            }
            (SignatureAlgorithm::Elliptic(curve), KeyMaterial::Elliptic(own, point)) => {
                let algorithm = match *own {
                    "P-256" => &signature::ECDSA_P256_SHA256_FIXED,
                    _ => &signature::ECDSA_P384_SHA384_FIXED,
                };
                curve == *own && verifies(algorithm, point)
            }
            (SignatureAlgorithm::Ed25519, KeyMaterial::Ed25519(point)) => {
                verifies(&signature::ED25519, point)
            }
            (
                SignatureAlgorithm::Rsa(_)
                | SignatureAlgorithm::Elliptic(_)
                | SignatureAlgorithm::Ed25519,
                KeyMaterial::Rsa { .. } | KeyMaterial::Elliptic(..) | KeyMaterial::Ed25519(_),
            ) => false,
        }
    }
}

/// A point of a curve whose coordinates have this many bytes.
fn elliptic(curve: &'static str, bytes: usize, x: &[u8], y: &[u8]) -> Option<KeyMaterial> {
    let is_point = x.len() == bytes && y.len() == bytes;
    is_point.then(|| KeyMaterial::Elliptic(curve, [&[4], x, y].concat()))
}
