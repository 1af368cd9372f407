//! Scenarios of flags: versions, kills, client keys, and every length of the log.

use proptest::prelude::*;
use serde_json::json;
use shipway_flags::{EvaluationContext, EvaluationReason, FlagFileStrictness};

use super::*;
use crate::{access::Principal, aggregate::fold};

const BOOLEAN: &str =
    r#"{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}"#;
const PERCENTAGE: &str = r#"{
  "state": "ENABLED",
  "variants": {"on": true, "off": false},
  "defaultVariant": "off",
  "targeting": {"fractional": [["on", 100], ["off", 0]]}
}"#;

struct ServiceFlags {
    state: FlagSetState,
    events: Vec<Event<FlagSetEvent>>,
    now: Timestamp,
}

fn live() -> EnvironmentName {
    "live".parse().unwrap()
}

fn key(text: &str) -> FlagKey {
    text.parse().unwrap()
}

fn content(definition: &str) -> FlagContent {
    FlagContent {
        definition: definition.to_owned(),
        details: Default::default(),
    }
}

fn kill(variant: Option<&str>) -> FlagSetInput {
    FlagSetInput::KillFlag {
        environment: live(),
        key: key("checkout"),
        kill: FlagKill {
            variant: variant.map(str::to_owned),
            reason: "orders fail".to_owned(),
        },
    }
}

fn resume() -> FlagSetInput {
    FlagSetInput::ResumeFlag {
        environment: live(),
        key: key("checkout"),
        reason: "repaired".to_owned(),
    }
}

fn change(flag: &str, definition: &str, expected_version: Option<u64>) -> FlagSetInput {
    FlagSetInput::ChangeFlag {
        environment: live(),
        key: key(flag),
        content: content(definition),
        expected_version,
    }
}

fn remove(flag: &str) -> FlagSetInput {
    FlagSetInput::RemoveFlag {
        environment: live(),
        key: key(flag),
        expected_version: None,
    }
}

impl ServiceFlags {
    fn new() -> Self {
        Self {
            state: FlagSetState::default(),
            events: Vec::new(),
            now: "2026-11-30T09:00:00Z".parse().unwrap(),
        }
    }

    fn send(&mut self, input: FlagSetInput) -> Result<usize, FlagSetRejection> {
        self.send_as(input, Principal::person("ada").actor())
    }

    fn send_automatically(&mut self, input: FlagSetInput) -> Result<usize, FlagSetRejection> {
        self.send_as(input, Actor::Shipway("the next step".to_owned()))
    }

    fn send_as(&mut self, input: FlagSetInput, by: Actor) -> Result<usize, FlagSetRejection> {
        let events = FlagSetAggregate::decide(&self.state, input, by, self.now)?;
        fold::<FlagSetAggregate>(&mut self.state, &events);
        self.events.extend(events.iter().cloned());
        Ok(events.len())
    }

    fn version(&self, flag: &str) -> u64 {
        (self.state.flag(&live(), &key(flag))).map_or(0, |it| it.version)
    }

    /// The variant and reason of a flag for a user, as clients get them.
    fn evaluate(&self, flag: &str) -> (Option<String>, EvaluationReason) {
        let documents = self.state.environments[&live()].served_documents();
        let set = documents.compile(FlagFileStrictness::Strict).unwrap();
        let context = EvaluationContext::new(0).with_targeting_key("user-17");
        let evaluation = set.evaluate(flag, &context).unwrap();
        (evaluation.variant.map(str::to_owned), evaluation.reason)
    }
}

fn variant(name: &str, reason: EvaluationReason) -> (Option<String>, EvaluationReason) {
    (Some(name.to_owned()), reason)
}

#[test]
fn of_two_editors_the_second_is_refused_and_a_removed_flag_never_has_an_earlier_version() {
    let mut flags = ServiceFlags::new();
    flags.send(change("checkout", BOOLEAN, Some(0))).unwrap();
    assert_eq!(flags.send(change("checkout", BOOLEAN, Some(1))), Ok(0));
    flags.send(change("checkout", PERCENTAGE, Some(1))).unwrap();
    assert!(matches!(
        flags.send(change("checkout", BOOLEAN, Some(1))),
        Err(FlagSetRejection::OtherVersion {
            current: 2,
            expected: 1,
            ..
        })
    ));
    flags.send(remove("checkout")).unwrap();
    assert!(matches!(
        flags.send(remove("checkout")),
        Err(FlagSetRejection::UnknownFlag { .. })
    ));
    flags.send(change("checkout", PERCENTAGE, Some(0))).unwrap();
    assert_eq!(flags.version("checkout"), 4);
    flags.send(FlagSetInput::RemoveAll).unwrap();
    assert_eq!(flags.send(FlagSetInput::RemoveAll), Ok(0));
    flags.send(change("checkout", PERCENTAGE, Some(0))).unwrap();
    assert_eq!(flags.version("checkout"), 6);
}

#[test]
fn a_kill_wins_over_rules_and_later_changes_until_a_person_resumes() {
    let mut flags = ServiceFlags::new();
    flags.send(change("checkout", PERCENTAGE, None)).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("on", EvaluationReason::Split)
    );
    let seen = flags.version("checkout");

    assert_eq!(flags.send_automatically(kill(Some("off"))), Ok(1));
    assert_eq!(flags.send(kill(Some("off"))), Ok(0));
    assert_eq!(
        flags.evaluate("checkout"),
        variant("off", EvaluationReason::Static)
    );
    assert!(matches!(
        flags.send(change("checkout", BOOLEAN, Some(seen))),
        Err(FlagSetRejection::OtherVersion { .. })
    ));
    assert!(matches!(
        flags.send_automatically(change("checkout", BOOLEAN, None)),
        Err(FlagSetRejection::Killed { .. })
    ));
    assert!(matches!(
        flags.send(remove("checkout")),
        Err(FlagSetRejection::Killed { .. })
    ));
    assert!(matches!(
        flags.send_automatically(resume()),
        Err(FlagSetRejection::ResumeNeedsPerson { .. })
    ));
    flags.send(change("checkout", BOOLEAN, None)).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("off", EvaluationReason::Static)
    );
    let without_off = BOOLEAN.replace(r#", "off": false"#, "");
    assert!(matches!(
        flags.send(change("checkout", &without_off, None)),
        Err(FlagSetRejection::UnknownKillVariant { .. })
    ));

    flags.send(kill(None)).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        (None, EvaluationReason::Disabled)
    );
    flags.send(resume()).unwrap();
    assert_eq!(flags.send(resume()), Ok(0));
    assert_eq!(
        flags.evaluate("checkout"),
        variant("on", EvaluationReason::Static)
    );
    assert!(matches!(
        flags.send(kill(Some("of"))),
        Err(FlagSetRejection::UnknownKillVariant { .. })
    ));
}

#[test]
fn a_killed_flag_ignores_its_own_prerequisites_and_does_not_meet_those_of_others() {
    let mut flags = ServiceFlags::new();
    flags.send(change("cart", BOOLEAN, None)).unwrap();
    let details = shipway_flags::FlagSetDetails::parse(
        r#"{"flags": {"checkout": {"prerequisites": [{"flag": "cart", "variants": ["on"]}], "unmetVariant": "off"}}}"#,
    );
    let details = details.unwrap().flags["checkout"].clone();
    let input = FlagSetInput::ChangeFlag {
        environment: live(),
        key: key("checkout"),
        content: FlagContent {
            definition: BOOLEAN.to_owned(),
            details,
        },
        expected_version: None,
    };
    flags.send(input).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("on", EvaluationReason::Default)
    );
    let kill_cart = FlagSetInput::KillFlag {
        environment: live(),
        key: key("cart"),
        kill: FlagKill {
            variant: None,
            reason: "slow".to_owned(),
        },
    };
    flags.send(kill_cart).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("off", EvaluationReason::Default)
    );
    flags.send(kill(Some("on"))).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("on", EvaluationReason::Static)
    );
}

#[test]
fn a_definition_is_refused_with_positions_of_its_own_text() {
    let mut flags = ServiceFlags::new();
    flags.send(change("cart", PERCENTAGE, None)).unwrap();
    let broken = PERCENTAGE.replace("\"off\",\n", "\"offf\",\n");
    let refused = flags.send(change("checkout", &broken, None)).unwrap_err();
    insta::assert_snapshot!(refused, @"4:21: /flags/checkout/defaultVariant: `offf` is none of the flag's variants; did you mean `off`?");
    for definition in [
        "",
        "[]",
        "{",
        r#"{"state": "ENABLED", "state": "ENABLED", "variants": {"on": true}}"#,
        // Would close its object and add another flag.
        r#"{"state": "ENABLED", "variants": {"on": true}}, "extra": {"state": "ENABLED", "variants": {"on": true}}"#,
    ] {
        let refused = flags.send(change("checkout", definition, None));
        assert!(
            matches!(refused, Err(FlagSetRejection::Invalid(_))),
            "{definition}"
        );
    }
    let long = format!("{BOOLEAN}{}", " ".repeat(DEFINITION_BYTES_MAX));
    assert!(matches!(
        flags.send(change("checkout", &long, None)),
        Err(FlagSetRejection::DefinitionTooLarge { .. })
    ));
    assert_eq!(flags.events.len(), 1);
}

#[test]
fn a_flag_or_segment_that_others_use_can_not_be_removed() {
    let mut flags = ServiceFlags::new();
    let segments = |rules: Value| FlagSetInput::ChangeSegments {
        environment: live(),
        segments: serde_json::from_value(rules).unwrap(),
        expected_version: None,
    };
    let rules = json!({"staff": {"==": [{"var": "email"}, "ada@example.com"]}});
    flags.send(segments(rules.clone())).unwrap();
    assert_eq!(flags.send(segments(rules)), Ok(0));
    let targeting = r#"{"if": [{"$ref": "staff"}, "on", "off"]}"#;
    let definition = PERCENTAGE.replace(r#"{"fractional": [["on", 100], ["off", 0]]}"#, targeting);
    flags.send(change("checkout", &definition, None)).unwrap();
    assert_eq!(
        flags.evaluate("checkout"),
        variant("off", EvaluationReason::TargetingMatch)
    );
    let refused = flags.send(segments(json!({}))).unwrap_err();
    assert!(matches!(refused, FlagSetRejection::Invalid(_)), "{refused}");
    let stale = FlagSetInput::ChangeSegments {
        environment: live(),
        segments: BTreeMap::new(),
        expected_version: Some(1),
    };
    assert!(matches!(
        flags.send(stale),
        Err(FlagSetRejection::OtherSetVersion { current: 2, .. })
    ));
}

#[test]
fn a_promotion_copies_the_content_that_was_seen_and_leaves_kills_alone() {
    let mut flags = ServiceFlags::new();
    flags.send(change("checkout", PERCENTAGE, None)).unwrap();
    flags.send(kill(None)).unwrap();
    let promote = |source: &str, target: &str, source_version| FlagSetInput::PromoteFlag {
        key: key("checkout"),
        source: source.parse().unwrap(),
        target: target.parse().unwrap(),
        source_version,
        expected_version: Some(0),
    };
    assert!(matches!(
        flags.send(promote("live", "europe", Some(1))),
        Err(FlagSetRejection::OtherVersion { current: 2, .. })
    ));
    assert!(matches!(
        flags.send(promote("live", "live", None)),
        Err(FlagSetRejection::SamePromotionTarget(_))
    ));
    assert!(matches!(
        flags.send(promote("europe", "live", None)),
        Err(FlagSetRejection::UnknownFlag { .. })
    ));
    flags.send(promote("live", "europe", Some(2))).unwrap();
    let europe = "europe".parse().unwrap();
    let promoted = flags.state.flag(&europe, &key("checkout")).unwrap();
    assert_eq!(promoted.content.definition, PERCENTAGE);
    assert_eq!(promoted.killed, None);
    assert_eq!(promoted.promoted_from.as_ref().unwrap().version, 2);
    assert!(
        flags
            .state
            .flag(&live(), &key("checkout"))
            .unwrap()
            .killed
            .is_some()
    );
}

#[test]
fn bucketing_is_chosen_before_the_first_flag_only() {
    let mut flags = ServiceFlags::new();
    let choose = |bucketing| FlagSetInput::ChooseBucketing {
        environment: live(),
        bucketing,
    };
    assert_eq!(flags.send(choose(BucketingVersion::V3)), Ok(0));
    assert_eq!(flags.send(choose(BucketingVersion::V2)), Ok(1));
    flags.send(change("checkout", PERCENTAGE, None)).unwrap();
    let served = flags.state.environments[&live()].served_documents();
    assert_eq!(served.details.bucketing, BucketingVersion::V2);
    assert!(matches!(
        flags.send(choose(BucketingVersion::V3)),
        Err(FlagSetRejection::BucketingInUse { .. })
    ));
}

#[test]
fn a_client_key_belongs_to_one_environment_until_it_expires_or_is_revoked() {
    let mut flags = ServiceFlags::new();
    let hash = Digest::compute(b"secret");
    let create = |expires_at| FlagSetInput::CreateClientKey {
        environment: live(),
        name: "web shop".to_owned(),
        hash: Digest::compute(b"secret"),
        expires_at,
    };
    let hour = SignedDuration::from_hours(1);
    for expiry in [flags.now, flags.now + CLIENT_KEY_LIFETIME_MAX + hour] {
        let refused = flags.send(create(Some(expiry)));
        assert_eq!(refused, Err(FlagSetRejection::InvalidExpiry));
    }
    flags.send(create(Some(flags.now + hour))).unwrap();
    assert_eq!(flags.send(create(None)), Err(FlagSetRejection::SecretInUse));
    let id: ClientKeyId = "k1".parse().unwrap();
    let client = |flags: &ServiceFlags, now| {
        let found = flags.state.authenticate_client(&hash, now);
        found.map(|(environment, id)| (environment.clone(), id.clone()))
    };
    assert_eq!(client(&flags, flags.now), Ok((live(), id.clone())));
    assert_eq!(
        client(&flags, flags.now + hour),
        Err(ClientKeyProblem::Expired(id.clone()))
    );
    let revoke = |environment: &str| FlagSetInput::RevokeClientKey {
        environment: environment.parse().unwrap(),
        id: "k1".parse().unwrap(),
    };
    assert!(matches!(
        flags.send(revoke("europe")),
        Err(FlagSetRejection::UnknownClientKey { .. })
    ));
    flags.send(revoke("live")).unwrap();
    assert_eq!(client(&flags, flags.now), Err(ClientKeyProblem::Unknown));
    flags.send(create(None)).unwrap();
    assert_eq!(
        client(&flags, flags.now),
        Ok((live(), "k2".parse().unwrap()))
    );
    let written = serde_json::to_string(&flags.events).unwrap();
    assert!(!written.contains("\"secret\""));
}

#[test]
fn texts_and_numbers_of_things_are_limited() {
    let mut flags = ServiceFlags::new();
    flags.send(change("checkout", BOOLEAN, None)).unwrap();
    for reason in ["", "two\nlines", &"long ".repeat(TEXT_CHARS_MAX)] {
        let input = FlagSetInput::KillFlag {
            environment: live(),
            key: key("checkout"),
            kill: FlagKill {
                variant: None,
                reason: reason.to_owned(),
            },
        };
        let refused = flags.send(input);
        assert!(
            matches!(refused, Err(FlagSetRejection::InvalidText(_))),
            "{reason}"
        );
    }
    for text in ["", "tab\t", &"k".repeat(257)] {
        assert!(text.parse::<FlagKey>().is_err(), "{text:?}");
    }
    for number in 1..FLAG_ENVIRONMENTS_MAX + 1 {
        let input = FlagSetInput::ChangeFlag {
            environment: format!("e{number}").parse().unwrap(),
            key: key("checkout"),
            content: content(BOOLEAN),
            expected_version: None,
        };
        let is_accepted = flags.send(input).is_ok();
        assert_eq!(is_accepted, number < FLAG_ENVIRONMENTS_MAX, "{number}");
    }
}

#[test]
fn a_key_that_needs_escapes_is_served_under_itself() {
    let mut flags = ServiceFlags::new();
    for name in ["a\"b", "a\\b", "a/b~c", "büro", "state"] {
        flags.send(change(name, BOOLEAN, None)).unwrap();
        let served = flags.evaluate(name);
        assert_eq!(served, variant("on", EvaluationReason::Static), "{name}");
        let broken = BOOLEAN.replace("\"on\"}", "\"no\"}");
        let refused = flags.send(change(name, &broken, None)).unwrap_err();
        let Some(text) = refused.to_string().strip_prefix("1:").map(str::to_owned) else {
            panic!("{refused}");
        };
        assert!(text.contains("`no`"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_state_is_recovered_and_served_at_every_length_of_the_log(steps in prop::collection::vec((0u8..9, 0u8..2), 1..40)) {
        let mut flags = ServiceFlags::new();
        let mut lengths = Vec::new();
        for (index, (step, flag)) in steps.into_iter().enumerate() {
            let flag = ["checkout", "cart"][usize::from(flag)];
            let input = match step {
                0 => change(flag, BOOLEAN, None),
                1 => change(flag, PERCENTAGE, None),
                2 => remove(flag),
                3 => kill(Some("off")),
                4 => kill(None),
                5 => resume(),
                6 => FlagSetInput::CreateClientKey {
                    environment: live(),
                    name: "client".to_owned(),
                    hash: Digest::compute(&index.to_le_bytes()),
                    expires_at: None,
                },
                7 => FlagSetInput::RevokeClientKey { environment: live(), id: "k1".parse().unwrap() },
                _ => FlagSetInput::RemoveAll,
            };
            let before = flags.state.clone();
            let refused = flags.send(input).is_err();
            prop_assert!(!refused || flags.state == before);
            lengths.push((flags.events.len(), flags.state.clone()));
        }
        let mut resumed = FlagSetState::default();
        let mut count = 0;
        let mut version = 0;
        for (length, expected) in lengths {
            for event in &flags.events[count..length] {
                let text = serde_json::to_string(event).unwrap();
                FlagSetAggregate::apply(&mut resumed, &serde_json::from_str(&text).unwrap());
            }
            count = length;
            let stored = serde_json::to_string(&resumed).unwrap();
            resumed = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&resumed, &expected);
            let Some(environment) = resumed.environments.get(&live()) else { continue };
            prop_assert!(environment.version >= version);
            version = environment.version;
            let set = environment.served_documents().compile(FlagFileStrictness::Strict).unwrap();
            for (key, flag) in &environment.flags {
                let context = EvaluationContext::new(0).with_targeting_key("user-17");
                let value = set.value_or(key.as_str(), &context, true);
                if flag.killed.as_ref().is_some_and(|it| it.kill.variant.is_some()) {
                    prop_assert!(!value, "a killed flag is off");
                }
            }
        }
    }
}
