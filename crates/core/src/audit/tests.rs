//! Which events become entries.

use serde_json::{Value, json};

use super::*;

fn person(body: &Value) -> String {
    event(
        &json!({ "person": { "principal": "user:ada", "name": "ada", "token": "t1" } }),
        body,
    )
}

fn event(by: &Value, body: &Value) -> String {
    json!({ "at": "2026-11-21T12:00:00Z", "by": by, "body": body }).to_string()
}

fn fold(log: &mut AuditLog, stream: &str, event: &str) -> Vec<AuditEntry> {
    let rows = log.fold(stream, event).unwrap();
    let rows = rows.into_iter();
    rows.map(|row| serde_json::from_value(row.doc).unwrap())
        .collect()
}

#[test]
fn changes_of_people_are_numbered_and_name_their_service_and_environment() {
    let mut log = AuditLog::default();
    let held =
        json!({ "environment_held": { "environment": "production", "reason": "customers call" } });
    for (stream, body, area, service, change) in [
        (
            "service/shop",
            held,
            AuditArea::Delivery,
            Some("shop"),
            "held production: customers call",
        ),
        (
            "rollout/shop/7",
            json!({ "rejected": { "reason": "not today" } }),
            AuditArea::Gates,
            Some("shop"),
            "rejected the rollout: not today",
        ),
        (
            "access/server",
            json!({ "user_disabled": { "user": "bob" } }),
            AuditArea::Access,
            None,
            "disabled user bob",
        ),
        (
            "secrets/@all",
            json!({ "secret_removed": { "environment": "production", "name": "API_KEY" } }),
            AuditArea::Secrets,
            None,
            "removed secret API_KEY of production",
        ),
        (
            "forge/shop",
            json!("disconnected"),
            AuditArea::Forges,
            Some("shop"),
            "disconnected the repository from its forge",
        ),
    ] {
        let before = log.entries;
        let entries = fold(&mut log, stream, &person(&body));
        let [entry] = entries.as_slice() else {
            panic!("{stream}: {entries:?}")
        };
        assert_eq!((entry.number, entry.area), (before + 1, area));
        assert_eq!(entry.change, change);
        assert_eq!(entry.service.as_ref().map(ServiceName::as_str), service);
        assert_eq!((entry.by.as_str(), entry.token.is_some()), ("ada", true));
    }
}

#[test]
fn what_shipway_does_what_changes_nothing_and_unknown_streams_are_no_entries() {
    let mut log = AuditLog::default();
    let paused = json!({ "paused": { "reason": "r" } });
    let login = json!({ "session_ended": { "session": format!("sha256:{}", "0".repeat(64)) } });
    for (stream, event) in [
        (
            "rollout/shop/7",
            event(&json!({ "shipway": "analysis" }), &paused),
        ),
        ("access/server", person(&login)),
        ("keyed/x", person(&json!({ "odd": 1 }))),
    ] {
        assert_eq!(fold(&mut log, stream, &event), [], "{stream}");
    }
    assert_eq!(log, AuditLog::default());
    assert!(
        log.fold("rollout/shop/7", &person(&json!({ "odd": 1 })))
            .is_err()
    );
}

#[test]
fn a_long_reason_is_cut() {
    let mut log = AuditLog::default();
    let body = json!({ "paused": { "reason": "é".repeat(1_000_000) } });
    let entries = fold(&mut log, "rollout/shop/7", &person(&body));
    assert_eq!(entries[0].change.chars().count(), CHANGE_CHARS_MAX);
}
