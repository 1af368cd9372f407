//! Lists, releases, comparisons, environments, approvals and badges as HTML, from views written by hand, some of them by an attacker.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shipway_api::EnvironmentCell;
use shipway_core::{forge::ForgeKind, rollout::RolloutView, run::RunView};
use shipway_pages::{
    ApprovalsPage, AuditSettingsPage, InboxEntry, InboxRollout, ListFilters, ListPage,
    RefusedWebhook, ReleasedCommits, SecretPermission, SecretRow, SecretSettingsPage,
    SettingsFrame, SettingsLink, WebhookSettingsPage, badge_svg, refusal_page,
};

const COMMIT: &str = "2b4c9f0e1d3a5b7c9e0f1a2b3c4d5e6f70819203";
const EVIL: &str = "<script>alert(1)</script>\u{202e}\u{7}\" onmouseover=\"x";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn view<T: DeserializeOwned>(document: Value) -> T {
    serde_json::from_value(document).unwrap()
}

fn run(text: &str) -> RunView {
    view(json!({
        "id": "shop/r12", "number": 12, "status": "failure", "conclusion": "failure", "commit": COMMIT, "subject": text,
        "branch": text, "event": "push", "workflow": text, "name": text, "title": text,
        "created_at": "2026-11-21T11:00:00Z", "started_at": "2026-11-21T11:00:01Z", "finished_at": "2026-11-21T11:01:00Z",
        "jobs": [], "artifacts": [], "by": text, "why": text, "attempt": 1,
    }))
}

fn rollout(text: &str, status: &str) -> RolloutView {
    view(json!({
        "id": "shop/ro2", "environment": "production", "release": 2, "commit": "2b4c9f0", "subject": text,
        "stable": 1, "kind": "rollback", "pace": "by_strategy", "change_failure": false, "strategy": "canary", "status": status, "direction": "forward",
        "by": text, "why": text, "plan": [{ "text": text, "progress": "todo" }],
        "split": [[1, 10_000]], "paused": null, "hold_until": null, "judgement": null, "seen": null,
        "smoke": null, "served": false, "notes": [], "opened_at": "2026-11-21T11:58:00Z", "rollback_start": null, "rolled_back_at": null, "ended": null,
    }))
}

fn list<T>(entries: Vec<T>) -> ListPage<T> {
    ListPage {
        entries,
        filters: ListFilters::default(),
        server_url: "http://127.0.0.1:7878".to_owned(),
        now: now(),
    }
}

/// Nothing of a text of others is markup, and no character turns its direction.
fn is_harmless(html: &str) {
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(!html.contains("\" onmouseover"), "{html}");
    let content = &html[html.find("<main").unwrap()..];
    let visible: String = content
        .split('>')
        .filter_map(|part| part.split('<').next())
        .collect();
    assert!(
        !visible.contains('\u{202e}') && !visible.contains('\u{7}'),
        "{html}"
    );
}

#[test]
fn what_others_wrote_is_harmless_in_every_list_and_of_limited_length() {
    let long = EVIL.repeat(20_000);
    for text in [EVIL, &long] {
        let mut runs = list(vec![run(text)]);
        runs.filters.person = text.chars().take(200).collect();
        runs.filters.problem = Some("bad".to_owned());
        let approvals = ApprovalsPage {
            waiting: vec![InboxEntry::Rollout(Box::new(InboxRollout {
                rollout: rollout(text, "waiting"),
                commits: ReleasedCommits {
                    problem: Some(text.to_owned()),
                    ..ReleasedCommits::default()
                },
                tests: None,
            }))],
            superseded: vec![rollout(text, "superseded")],
            filters: ListFilters::default(),
            now: now(),
        };
        let pages = [
            runs.to_html(),
            list(vec![rollout(text, "holding")]).to_html(),
            approvals.to_html(),
        ];
        for html in pages {
            is_harmless(&html);
            assert!(html.len() < 200_000, "{} bytes", html.len());
        }
    }
}

#[test]
fn a_rollback_has_its_own_mark_in_the_list() {
    let html = list(vec![rollout("First", "holding")]).to_html();
    assert!(
        html.contains("↩ rollback") && html.contains("/rollouts/shop/2"),
        "{html}"
    );
}

#[test]
fn an_empty_list_says_how_to_fill_it_and_a_filtered_one_how_to_see_all() {
    let html = list(Vec::<RunView>::new()).to_html();
    assert!(
        html.contains("git push http://127.0.0.1:7878/git/my-service main"),
        "{html}"
    );
    let mut filtered = list(Vec::<RunView>::new());
    filtered.filters.branch = "a&b".to_owned();
    let html = filtered.to_html();
    assert!(html.contains("Nothing matches these filters"), "{html}");
}

#[test]
fn the_link_to_older_entries_keeps_the_filters() {
    let mut runs = list(vec![run("First")]);
    runs.filters.branch = "a&b=c".to_owned();
    runs.filters.since = "7d".to_owned();
    runs.filters.next = Some(99);
    let html = runs.to_html();
    assert!(
        html.contains("href=\"/runs?branch=a%26b%3Dc&amp;since=7d&amp;cursor=99\""),
        "{html}"
    );
}

#[test]
fn an_approval_is_for_what_the_page_shows() {
    let approvals = ApprovalsPage {
        waiting: vec![InboxEntry::Rollout(Box::new(InboxRollout {
            rollout: rollout("First", "waiting"),
            commits: ReleasedCommits::default(),
            tests: None,
        }))],
        superseded: Vec::new(),
        filters: ListFilters::default(),
        now: now(),
    };
    let html = approvals.to_html();
    for words in [
        "data-post=\"/api/v1/rollouts/shop/2/approve\"",
        "data-post=\"/api/v1/rollouts/shop/2/reject\"",
        "shipway approve shop/ro2",
        "/services/shop/compare?from=1&amp;to=2",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
}

#[test]
fn a_badge_says_environment_release_and_health_and_nothing_else() {
    let cell: EnvironmentCell = view(json!({
        "environment": "production", "states": ["healthy"], "health": "healthy",
        "release": { "number": 12, "commit": COMMIT, "subject": "a secret subject" },
        "serves_since": "2026-11-21T11:50:00Z",
        "hold": { "by": "Ann", "since": "2026-11-21T11:50:00Z", "reason": "a secret reason" },
    }));
    let svg = badge_svg("production", Some(&cell));
    assert!(
        svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""),
        "{svg}"
    );
    assert!(svg.contains("production: #12 healthy"), "{svg}");
    for secret in ["secret", "Ann", COMMIT] {
        assert!(!svg.contains(secret), "{svg}");
    }
    let evil = badge_svg(&EVIL.repeat(1_000), None);
    assert!(!evil.contains("<script") && evil.len() < 2_000, "{evil}");
}

fn settings_frame(problem: Option<&str>) -> SettingsFrame {
    let current = SettingsLink {
        address: "/settings/secrets",
        title: "Secrets",
    };
    SettingsFrame {
        current,
        links: vec![current],
        problem: problem.map(str::to_owned),
    }
}

fn secrets_page(text: &str, access: SecretPermission) -> SecretSettingsPage {
    let secret = view(json!({
        "name": "API_KEY", "service": "shop", "environment": null, "version": 3,
        "changed_at": "2026-11-21T11:00:00Z", "changed_by": text,
        "uses": [
            { "user": "an older use", "at": "2026-11-21T11:10:00Z" },
            { "user": text, "at": "2026-11-21T11:50:00Z" },
        ],
    }));
    SecretSettingsPage {
        frame: settings_frame(Some(text)),
        secrets: vec![SecretRow { secret, access }],
        services: vec!["shop".parse().unwrap()],
        environments: vec!["production".to_owned()],
        access,
        now: now(),
    }
}

#[test]
fn the_settings_show_what_others_wrote_harmlessly() {
    let long = EVIL.repeat(20_000);
    for text in [EVIL, &long] {
        let audit = AuditSettingsPage {
            frame: settings_frame(Some(text)),
            entries: vec![view(json!({
                "number": 1, "at": "2026-11-21T11:00:00Z", "by": text, "principal": "user:ada", "token": "t1",
                "area": "delivery", "stream": "rollout/shop/7", "service": "shop", "change": text,
            }))],
            filters: ListFilters::default(),
            now: now(),
        };
        let webhooks = WebhookSettingsPage {
            frame: settings_frame(None),
            connections: vec![view(json!({
                "repository": "shop", "forge": "github", "project": text, "git_url": text, "api_url": text,
                "hook_url": "http://127.0.0.1:7878/hooks/github", "webhook_secret": "HOOK", "token": null, "forks": "run",
                "waiting_deliveries": 1, "deliveries": [{ "at": "2026-11-21T11:00:00Z", "id": text, "outcome": text }],
                "waiting_reports": 0, "failed_reports": [],
            }))],
            refusals: vec![RefusedWebhook {
                forge: ForgeKind::Gitlab,
                at: now(),
                reason: text.to_owned(),
            }],
            now: now(),
        };
        let html = audit.to_html();
        assert!(html.contains("href=\"/rollouts/shop/7\""), "{html}");
        let secrets = secrets_page(text, SecretPermission::Change);
        for html in [
            html,
            webhooks.to_html(),
            secrets.to_html(),
            refusal_page(403, text),
        ] {
            is_harmless(&html);
            assert!(html.len() < 200_000, "{} bytes", html.len());
        }
    }
}

#[test]
fn a_secret_has_its_last_use_and_forms_only_for_those_who_may_change_it() {
    let html = secrets_page("ann", SecretPermission::Change).to_html();
    for part in [
        "10 min ago</time>, <bdi>ann</bdi>",
        "all environments",
        "<input type=\"hidden\" name=\"version\" value=\"3\">",
        "aria-label=\"Remove API_KEY\"",
    ] {
        assert!(html.contains(part), "{part} is not in {html}");
    }
    assert!(!html.contains("an older use"), "{html}");
    let html = secrets_page("ann", SecretPermission::List).to_html();
    assert!(
        html.contains("API_KEY") && !html.contains("<textarea"),
        "{html}"
    );
}
