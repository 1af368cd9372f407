//! Signatures, and what tokens may not choose.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::{
    signed_token::{SignatureProblem, SignedToken},
    verification_key::KeySet,
};

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

struct TestSigner {
    elliptic: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

impl TestSigner {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let elliptic = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            elliptic,
            edwards: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap(),
        }
    }

    /// Its keys as a provider publishes them, with more fields in each.
    fn keys(&self, fields: &Value) -> KeySet {
        let point = self.elliptic.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let edwards = URL_SAFE_NO_PAD.encode(self.edwards.public_key().as_ref());
        let mut keys = vec![
            json!({ "kty": "EC", "crv": "P-256", "kid": "one", "x": part(1..33), "y": part(33..65) }),
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "two", "x": edwards }),
            json!({ "kty": "unknown" }),
            json!(7),
        ];
        for key in &mut keys[..2] {
            for (name, value) in fields.as_object().unwrap() {
                key[name] = value.clone();
            }
        }
        KeySet::from_published(keys)
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = match header["kid"] == "two" {
            true => self.edwards.sign(message.as_bytes()).as_ref().to_vec(),
            false => {
                let random = SystemRandom::new();
                let signed = self.elliptic.sign(&random, message.as_bytes()).unwrap();
                signed.as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn problem(token: &str, keys: &KeySet) -> SignatureProblem {
    let verified = SignedToken::parse(token).and_then(|token| token.verify(keys));
    verified.expect_err(token)
}

#[test]
fn a_token_is_verified_with_the_key_and_the_algorithm_of_its_provider() {
    let signer = TestSigner::new();
    let keys = signer.keys(&json!({}));
    let claims = json!({ "iss": "https://login.example.com", "sub": "x".repeat(100_000) });
    for header in [
        json!({ "alg": "ES256", "kid": "one" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "EdDSA", "kid": "two" }),
    ] {
        let text = signer.sign(&header, &claims);
        assert!(SignedToken::has_form(&text));
        let token = SignedToken::parse(&text).unwrap();
        assert_eq!(token.claimed_issuer(), Some("https://login.example.com"));
        let verified = token.verify(&keys).unwrap();
        assert_eq!(
            verified.text("sub").map(str::len),
            Some(100_000),
            "{header}"
        );
    }
    for (header, wanted) in [
        (
            json!({ "alg": "none" }),
            SignatureProblem::Algorithm("none".to_owned()),
        ),
        (
            json!({ "alg": "HS256", "kid": "one" }),
            SignatureProblem::Algorithm("HS256".to_owned()),
        ),
        (
            json!({ "alg": "RS256", "kid": "one" }),
            SignatureProblem::Signature,
        ),
        (
            json!({ "alg": "ES384", "kid": "one" }),
            SignatureProblem::Signature,
        ),
        (
            json!({ "alg": "EdDSA", "kid": "one" }),
            SignatureProblem::Signature,
        ),
        (
            json!({ "alg": "ES256", "kid": "two" }),
            SignatureProblem::Signature,
        ),
        (
            json!({ "alg": "ES256", "kid": "three" }),
            SignatureProblem::UnknownKey("three".to_owned()),
        ),
        (
            json!({ "alg": "ES256", "crit": ["b64"], "b64": false }),
            SignatureProblem::Malformed,
        ),
        (json!({ "kid": "one" }), SignatureProblem::Malformed),
    ] {
        assert_eq!(
            problem(&signer.sign(&header, &claims), &keys),
            wanted,
            "{header}"
        );
    }
    let stranger = TestSigner::new();
    let forged = stranger.sign(&json!({ "alg": "ES256", "kid": "one" }), &claims);
    assert_eq!(problem(&forged, &keys), SignatureProblem::Signature);
    let forged = stranger.sign(&json!({ "alg": "ES256" }), &claims);
    assert!(matches!(
        problem(&forged, &keys),
        SignatureProblem::UnknownKey(_)
    ));
}

#[test]
fn keys_for_another_use_verify_nothing_and_changed_tokens_neither() {
    let signer = TestSigner::new();
    let text = signer.sign(
        &json!({ "alg": "ES256", "kid": "one" }),
        &json!({ "sub": "ada" }),
    );
    for fields in [
        json!({ "use": "enc" }),
        json!({ "alg": "ES384" }),
        json!({ "x": "AAAA" }),
    ] {
        let keys = signer.keys(&fields);
        assert!(
            matches!(problem(&text, &keys), SignatureProblem::UnknownKey(_)),
            "{fields}"
        );
    }
    let keys = signer.keys(&json!({ "use": "sig" }));
    let changed = text.replace(
        &encode(&json!({ "sub": "ada" })),
        &encode(&json!({ "sub": "eve" })),
    );
    assert_eq!(problem(&changed, &keys), SignatureProblem::Signature);
    let (start, _) = text.rsplit_once('.').unwrap();
    for wrong in [format!("{start}."), format!("{start}.AAAA")] {
        assert_eq!(
            problem(&wrong, &keys),
            SignatureProblem::Signature,
            "{wrong}"
        );
    }
    for wrong in [
        "",
        ".",
        "..",
        "eyJ.eyJ.",
        "a.b.c.d",
        &text[1..],
        &format!("{text}="),
    ] {
        assert_eq!(
            problem(wrong, &keys),
            SignatureProblem::Malformed,
            "{wrong}"
        );
    }
}
