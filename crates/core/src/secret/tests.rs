use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{
    aggregate::fold,
    principal_id::PrincipalId,
    sealed_value::{SealedValue, SealingKeyId},
};

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn ada() -> Actor {
    Actor::Person {
        principal: "person:ada".parse::<PrincipalId>().unwrap(),
        name: "ada".to_owned(),
        token: None,
    }
}

fn sealed(text: &str) -> SealedValue {
    SealedValue {
        key: SealingKeyId(1),
        data: text.to_owned(),
    }
}

fn environment(name: &str) -> Option<EnvironmentName> {
    (!name.is_empty()).then(|| name.parse().unwrap())
}

fn set(place: &str, name: &str, value: &str, expected_version: Option<u32>) -> SecretInput {
    SecretInput::SetSecrets {
        environment: environment(place),
        secrets: BTreeMap::from([(name.parse().unwrap(), sealed(value))]),
        expected_version,
    }
}

fn send(
    state: &mut SecretState,
    input: SecretInput,
    now: Timestamp,
) -> Result<usize, SecretRejection> {
    let events = SecretAggregate::decide(state, input, ada(), now)?;
    let text = serde_json::to_string(&events).unwrap();
    let read: Vec<Event<SecretEvent>> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, events, "an event is read as it was written");
    fold::<SecretAggregate>(state, &events);
    let stored = serde_json::to_string(state).unwrap();
    assert_eq!(
        serde_json::from_str::<SecretState>(&stored).unwrap(),
        *state
    );
    Ok(events.len())
}

fn used(place: &str, name: &str, version: u32) -> UsedSecret {
    UsedSecret {
        environment: environment(place),
        name: name.parse().unwrap(),
        version,
    }
}

#[test]
fn versions_grow_and_a_change_of_another_version_is_refused() {
    let mut state = SecretState::default();
    send(&mut state, set("", "key", "a", Some(0)), START).unwrap();
    send(&mut state, set("", "KEY", "b", Some(1)), START).unwrap();
    let refused = send(&mut state, set("", "KEY", "c", Some(1)), START);
    assert!(matches!(
        refused,
        Err(SecretRejection::OtherVersion {
            current: 2,
            expected: 1,
            ..
        })
    ));
    let name: SecretName = "Key".parse().unwrap();
    let remove = SecretInput::RemoveSecret {
        environment: None,
        name: name.clone(),
    };
    send(&mut state, remove.clone(), START).unwrap();
    assert_eq!(state.shared.secret(&name), None);
    assert!(secret_views(None, &state).is_empty());
    let refused = send(&mut state, remove, START).unwrap_err();
    assert_eq!(refused, SecretRejection::NoSecret { name: name.clone() });
    send(&mut state, set("", "KEY", "d", Some(0)), START).unwrap();
    assert_eq!(state.shared.secret(&name), Some((3, &sealed("d"))));
}

#[test]
fn own_values_come_before_those_of_all_services_and_those_of_an_environment_before_shared_ones() {
    let (mut own, mut all) = (SecretState::default(), SecretState::default());
    for (place, name, value) in [
        ("", "A", "own"),
        ("", "B", "own"),
        ("live", "C", "own live"),
    ] {
        send(&mut own, set(place, name, value, None), START).unwrap();
    }
    for (place, name) in [("", "A"), ("live", "B"), ("live", "C"), ("", "D")] {
        let value = format!("all {place}");
        send(&mut all, set(place, name, &value, None), START).unwrap();
    }
    let service: ServiceName = "shop".parse().unwrap();
    let scopes = SecretScopes {
        service: &service,
        own: Some(&own),
        of_all_services: Some(&all),
    };
    let find = |place: &str, name: &str| {
        let found = scopes.find_secret(environment(place).as_ref(), &name.parse().unwrap());
        found.map(|it| format!("{} ({})", it.value.data, it.scope))
    };
    for (place, name, expected) in [
        ("", "A", "own (shop)"),
        ("live", "A", "own (shop)"),
        ("", "B", "own (shop)"),
        ("live", "B", "all live (all services in live)"),
        ("live", "C", "own live (shop in live)"),
        ("live", "D", "all  (all services)"),
    ] {
        assert_eq!(
            find(place, name).as_deref(),
            Some(expected),
            "{place} {name}"
        );
    }
    assert_eq!(find("", "C"), None, "outside of its environment");
    let names = |found: BTreeMap<&SecretName, FoundSecret<'_>>| {
        let shown = found
            .into_iter()
            .map(|(name, it)| format!("{name}={}", it.value.data));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(names(scopes.shared_secrets()), ["A=own", "B=own", "D=all "]);
    let live = environment("live").unwrap();
    assert_eq!(
        names(scopes.environment_secrets(&live)),
        ["B=all live", "C=own live"]
    );
}

#[test]
fn a_use_is_recorded_once_an_hour_for_each_user_and_again_for_a_new_version() {
    let mut state = SecretState::default();
    send(&mut state, set("live", "KEY", "a", None), START).unwrap();
    let provider = SecretUser::MetricProvider {
        environment: environment("live").unwrap(),
    };
    let record = |user: &SecretUser, version: u32| SecretInput::RecordUse {
        user: user.clone(),
        secrets: vec![used("live", "KEY", version), used("", "NONE", 1)],
    };
    let later = |minutes: i64| START + SignedDuration::from_mins(minutes);
    assert_eq!(send(&mut state, record(&provider, 1), START), Ok(1));
    assert_eq!(send(&mut state, record(&provider, 1), later(59)), Ok(0));
    assert_eq!(
        send(&mut state, record(&SecretUser::Notification, 1), later(59)),
        Ok(1)
    );
    assert_eq!(send(&mut state, record(&provider, 1), later(61)), Ok(1));
    send(&mut state, set("live", "KEY", "b", None), later(62)).unwrap();
    assert_eq!(send(&mut state, record(&provider, 2), later(63)), Ok(1));
    let views = secret_views(None, &state);
    assert_eq!((views[0].version, views[0].uses.len()), (2, 1));
    assert_eq!(views[0].uses[0].user, "a metric provider of live");
}

#[test]
fn a_secret_that_changed_meanwhile_is_not_resealed() {
    let mut state = SecretState::default();
    send(&mut state, set("", "A", "old a", None), START).unwrap();
    send(&mut state, set("", "B", "old b", None), START).unwrap();
    send(&mut state, set("", "B", "new b", None), START).unwrap();
    let resealed = |name: &str| SealedSecret {
        name: name.parse().unwrap(),
        version: 1,
        value: sealed("resealed"),
    };
    let input = SecretInput::ResealSecrets {
        environment: None,
        secrets: vec![resealed("A"), resealed("B"), resealed("C")],
    };
    assert_eq!(send(&mut state, input.clone(), START), Ok(1));
    let value = |name: &str| state.shared.secret(&name.parse().unwrap()).unwrap();
    assert_eq!(value("A"), (1, &sealed("resealed")));
    assert_eq!(value("B"), (2, &sealed("new b")));
    assert_eq!(send(&mut state, input, START), Ok(0), "again");
}

#[test]
fn variables_are_readable_and_an_unchanged_one_is_no_event() {
    let mut state = SecretState::default();
    let set = |value: &str| SecretInput::SetVariables {
        environment: environment("live"),
        variables: BTreeMap::from([("level".parse().unwrap(), value.to_owned())]),
    };
    assert_eq!(send(&mut state, set("info"), START), Ok(1));
    assert_eq!(send(&mut state, set("info"), START), Ok(0));
    let views = variable_views(None, &state);
    assert_eq!(
        (views[0].name.as_str(), views[0].value.as_str()),
        ("LEVEL", "info")
    );
    let remove = SecretInput::RemoveVariable {
        environment: environment("live"),
        name: "level".parse().unwrap(),
    };
    assert_eq!(send(&mut state, remove.clone(), START), Ok(1));
    assert!(send(&mut state, remove, START).is_err());
}

#[test]
fn a_deleted_service_leaves_no_value_and_versions_go_on() {
    let mut state = SecretState::default();
    send(&mut state, set("", "KEY", "a", None), START).unwrap();
    send(&mut state, set("live", "KEY", "b", None), START).unwrap();
    assert_eq!(send(&mut state, SecretInput::RemoveAll, START), Ok(1));
    assert_eq!(send(&mut state, SecretInput::RemoveAll, START), Ok(0));
    assert!(state.is_empty() && secret_views(None, &state).is_empty());
    send(&mut state, set("live", "KEY", "c", None), START).unwrap();
    assert_eq!(secret_views(None, &state)[0].version, 2);
}

#[test]
fn more_than_the_limit_is_refused_whole() {
    let mut state = SecretState::default();
    let many = |from: usize, to: usize| {
        let names = (from..to).map(|index| format!("N{index}").parse().unwrap());
        SecretInput::SetSecrets {
            environment: None,
            secrets: names.map(|name| (name, sealed("x"))).collect(),
            expected_version: None,
        }
    };
    send(&mut state, many(0, VALUES_MAX), START).unwrap();
    assert_eq!(
        send(&mut state, many(VALUES_MAX - 1, VALUES_MAX + 1), START),
        Err(SecretRejection::TooMany)
    );
    send(&mut state, many(0, VALUES_MAX), START).unwrap();
}

#[test]
fn names_are_as_on_github() {
    for name in ["a", "_x1", "DATABASE_URL", &"a".repeat(255)] {
        let parsed: SecretName = name.parse().unwrap();
        assert_eq!(parsed.as_str(), name.to_ascii_uppercase());
    }
    for name in [
        "",
        "1a",
        "a-b",
        "a b",
        "ä",
        "a\u{202e}",
        "GitHub_Token",
        &"a".repeat(256),
    ] {
        assert!(name.parse::<SecretName>().is_err(), "{name:?}");
    }
    let error = "p4ss=word".parse::<SecretName>().unwrap_err().to_string();
    assert!(!error.contains("word"), "{error}");
}

#[test]
fn a_dotenv_file_is_read_or_refused_with_its_line() {
    let text = "\u{feff}# comment\n\n export  A = plain # comment\nB=has#hash\nC='it is \\n $A'\nD=\"two\nlines\\t\\$\\\"\\q\"  # end\nE=\nF=\"\"\r\nG= a b \r\nH=#none\n";
    let values = parse_dotenv(text).unwrap();
    let shown: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        shown,
        [
            "A=plain",
            "B=has#hash",
            "C=it is \\n $A",
            "D=two\nlines\t$\"\\q",
            "E=",
            "F=",
            "G=a b",
            "H="
        ]
    );
    for (text, expected) in [
        ("A=1\nnot an assignment\n", "line 2 is not NAME=value"),
        ("A=1\nA=2", "line 2 sets A a second time"),
        ("A-B=1", "line 1: \"A-B\"… is not a valid name"),
        ("\nA=\"x\ny\n", "the quote that begins in line 2 has no end"),
        ("A='x' y", "line 1 has text after the closing quote"),
    ] {
        let error = parse_dotenv(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let long = format!("A={}", "x".repeat(VALUE_BYTES_MAX + 1));
    let error = parse_dotenv(&long).unwrap_err();
    assert!(matches!(error, DotenvError::TooLong { line: 1, .. }));
}

proptest! {
    #[test]
    fn no_file_panics_and_single_quotes_keep_a_value(text in "\\PC{0,80}", value in "[^']{0,40}") {
        let _ = parse_dotenv(&text);
        let values = parse_dotenv(&format!("X='{value}'\n")).unwrap();
        prop_assert_eq!(values.values().next().unwrap(), &value);
    }
}
