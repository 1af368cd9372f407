//! Which tokens and which people are accepted.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://login.example.com";

fn claims(value: Value) -> VerifiedClaims {
    match value {
        Value::Object(claims) => VerifiedClaims::from_verified(claims),
        _ => unreachable!("claims are an object"),
    }
}

fn now() -> Timestamp {
    "2026-11-30T09:00:00Z".parse().unwrap()
}

/// A valid token with one claim replaced; `null` removes it.
fn token(name: &str, value: Value) -> VerifiedClaims {
    let second = now().as_second();
    let mut all = json!({
        "iss": ISSUER, "aud": "shipway", "sub": "248289", "nonce": "n", "iat": second, "exp": second + 300,
    });
    all[name] = value;
    if all[name].is_null() {
        all.as_object_mut().unwrap().remove(name);
    }
    claims(all)
}

const LOGIN: TokenRequirements<'_> = TokenRequirements {
    issuer: ISSUER,
    audience: TokenAudience::LoginClient("shipway"),
    nonce: Some("n"),
};

#[test]
fn a_token_must_be_for_this_server_this_login_and_this_time() {
    let second = now().as_second();
    for (name, value) in [
        ("x", json!(1)),
        ("aud", json!(["shipway"])),
        ("exp", json!(second - 59)),
        ("iat", json!(second + 60)),
        ("nbf", json!(second + 60)),
        ("exp", json!(second as f64 + 0.5)),
        ("azp", json!("shipway")),
    ] {
        let checked = LOGIN
            .check(&token(name, value.clone()), now())
            .map(str::to_owned);
        assert_eq!(checked.as_deref(), Ok("248289"), "{name} {value}");
    }
    for (name, value) in [
        ("iss", json!("https://login.example.com/")),
        ("iss", Value::Null),
        ("aud", json!("shipway2")),
        ("aud", json!([])),
        ("aud", json!(["shipway", "other"])),
        ("aud", Value::Null),
        ("azp", json!("other")),
        ("azp", json!(["shipway"])),
        ("exp", json!(second - 60)),
        ("exp", json!("2030-01-01")),
        ("exp", json!(1e300)),
        ("exp", Value::Null),
        ("iat", json!(second + 61)),
        ("iat", Value::Null),
        ("nbf", json!(second + 61)),
        ("nbf", json!("now")),
        ("nonce", json!("other")),
        ("nonce", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("a\nb")),
        ("sub", json!("x".repeat(256))),
    ] {
        let changed = token(name, value.clone());
        assert!(LOGIN.check(&changed, now()).is_err(), "{name} {value}");
    }
    let late = now() + SignedDuration::from_secs(360);
    let expired = token("x", json!(1));
    assert!(matches!(
        LOGIN.check(&expired, late),
        Err(ClaimProblem::Expired(_))
    ));
}

#[test]
fn a_machine_s_token_may_have_more_audiences_and_no_nonce() {
    let machine = TokenRequirements {
        issuer: ISSUER,
        audience: TokenAudience::Named("shipway"),
        nonce: None,
    };
    let several = token("aud", json!(["other", "shipway"]));
    assert!(machine.check(&several, now()).is_ok());
    let other = token("aud", json!("shipway.example.com"));
    assert!(matches!(
        machine.check(&other, now()),
        Err(ClaimProblem::Audience(_))
    ));
}

fn policy(rules: &[&str]) -> SignInPolicy {
    SignInPolicy {
        rules: rules.iter().map(|it| it.parse().unwrap()).collect(),
        groups_claim: "groups".to_owned(),
        mappings: ["cn=ops,dc=example,dc=com=ops", "devs=platform"]
            .map(|it| it.parse().unwrap())
            .into(),
    }
}

#[test]
fn people_are_admitted_by_group_and_by_verified_address() {
    let ada = claims(json!({
        "email": "Ada@Example.com", "email_verified": true, "name": "Ada L.", "groups": ["devs", "x"],
    }));
    for rules in [["*"], ["@devs"], ["ada@example.COM"], ["*@example.com"]] {
        let profile = policy(&rules).admit(&ada).unwrap();
        assert_eq!(profile.email.as_deref(), Some("Ada@Example.com"));
        let groups: Vec<_> = profile.groups.iter().map(|it| it.as_str()).collect();
        assert_eq!(groups, ["platform"], "{rules:?}");
    }
    for rules in [&["@ops"][..], &["bob@example.com"], &["*@ample.com"], &[]] {
        let refused = policy(rules).admit(&ada).unwrap_err().to_string();
        assert!(refused.starts_with("Ada@Example.com may not"), "{refused}");
    }
    let unverified = claims(json!({ "email": "ada@example.com", "sub": "1" }));
    assert!(policy(&["*@example.com"]).admit(&unverified).is_err());
    assert_eq!(policy(&["*"]).admit(&unverified).unwrap().email, None);
    let single = claims(json!({ "groups": "cn=ops,dc=example,dc=com" }));
    assert_eq!(policy(&["*"]).admit(&single).unwrap().groups.len(), 1);
    for wrong in ["", "ada", "@", "a@b@c", "*@*", "a*@example.com", "ada@"] {
        assert!(wrong.parse::<SignInRule>().is_err(), "{wrong}");
    }
    for wrong in ["", "ops", "=ops", "ops=", "ops=Ops!"] {
        assert!(wrong.parse::<ProviderGroupMapping>().is_err(), "{wrong}");
    }
}

#[test]
fn names_of_providers_become_user_names() {
    for (claim, wanted) in [
        (
            json!({ "preferred_username": "Ada.Lovelace@example.com" }),
            "ada-lovelace",
        ),
        (json!({ "preferred_username": "../../etc" }), "etc"),
        (
            json!({ "preferred_username": "\u{202e}", "email": "b_o_b@x" }),
            "b-o-b",
        ),
        (json!({ "name": "x".repeat(1000) }), &"x".repeat(50)),
        (json!({}), "user"),
    ] {
        assert_eq!(
            SignInPolicy::preferred_name(&claims(claim)).as_str(),
            wanted
        );
    }
}
