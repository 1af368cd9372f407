use serde_json::{Value, json};

use super::*;
use crate::{
    aggregate::fold,
    ids::{CommitId, Digest},
};

fn connection(forge: ForgeKind) -> ForgeConnection {
    connect(forge, "acme/shop", Some("https://git.example.com/")).unwrap()
}

fn connect(
    forge: ForgeKind,
    project: &str,
    url: Option<&str>,
) -> Result<ForgeConnection, ConnectionError> {
    ForgeConnection::new(ConnectionRequest {
        forge,
        project,
        url,
        api: None,
        webhook_secret: &"HOOK".parse().unwrap(),
        token: "TOKEN".parse().ok().as_ref(),
        forks: ForkPolicy::Run,
    })
}

fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().unwrap()
}

fn decide(state: &mut ForgeState, input: ForgeInput) -> Result<Vec<ForgeEvent>, ForgeRejection> {
    let now = "2026-05-01T00:00:00Z".parse().unwrap();
    let by = Actor::Shipway("a test".to_owned());
    let events = ForgeAggregate::decide(state, input, by, now)?;
    fold::<ForgeAggregate>(state, &events);
    Ok(events.into_iter().map(|event| event.body).collect())
}

fn connected() -> ForgeState {
    let mut state = ForgeState::default();
    let input = ForgeInput::Connect {
        connection: Box::new(connection(ForgeKind::Gitea)),
        position: 10,
    };
    decide(&mut state, input).unwrap();
    state
}

fn delivery(body: &str, change: ForgeChange) -> ForgeInput {
    ForgeInput::AcceptDelivery(Box::new(AcceptedDelivery {
        id: "d-1".to_owned(),
        body: Digest::compute(body.as_bytes()),
        change,
    }))
}

fn main_moved() -> ForgeChange {
    ForgeChange::Reference {
        reference: "refs/heads/main".to_owned(),
        sender: None,
    }
}

fn pull_request(action: &str, head: char, updated_at: &str) -> PullRequestChange {
    PullRequestChange {
        number: 7,
        action: action.to_owned(),
        head: commit(head),
        base_branch: "main".to_owned(),
        origin: PullRequestOrigin::Fork,
        merged_as: None,
        updated_at: updated_at.parse().ok(),
        sender: None,
        payload: json!({}),
    }
}

fn status(context: &str, progress: ReportedProgress) -> ForgeReport {
    ForgeReport::Status(CommitStatusReport {
        commit: commit('b'),
        context: context.to_owned(),
        progress,
        description: "1 | job @all".to_owned(),
        url: "https://ci.example.com/runs/shop/1".to_owned(),
        pull_request: Some(7),
    })
}

#[test]
fn addresses_follow_from_the_forge_and_mistakes_are_explained() {
    let github = connect(ForgeKind::Github, "acme/shop.git", None).unwrap();
    assert_eq!(github.api_url(), "https://api.github.com");
    assert_eq!(github.git_url(), "https://github.com/acme/shop.git");
    assert!(github.is_of_project("Acme/Shop"));
    for (forge, api) in [
        (ForgeKind::Github, "https://git.example.com/api/v3"),
        (ForgeKind::Gitlab, "https://git.example.com/api/v4"),
        (ForgeKind::Gitea, "https://git.example.com/api/v1"),
    ] {
        assert_eq!(connection(forge).api_url(), api);
    }
    let refused = |forge, project: &str, url: Option<&str>| {
        connect(forge, project, url).unwrap_err().to_string()
    };
    insta::assert_snapshot!([
        refused(ForgeKind::Github, "shop", None),
        refused(ForgeKind::Gitea, "a/b/c", Some("https://git.example.com")),
        refused(ForgeKind::Gitlab, "a/../b", None),
        refused(ForgeKind::Gitea, "a/b", None),
        refused(ForgeKind::Github, "a/b", Some("https://me:secret@git.example.com")),
        refused(ForgeKind::Github, "a/b", Some("git.example.com")),
        "bitbucket".parse::<ForgeKind>().unwrap_err().to_string(),
    ].join("\n"), @r#"
    a project of GitHub is written OWNER/NAME, not "shop"
    a project of Gitea is written OWNER/NAME, not "a/b/c"
    "a/../b" is not a project: write its path at the forge, such as acme/shop
    Gitea is on a server of your own: give its address with --forge-url
    "git.example.com" is not the address of a forge: write it with http:// or https://, without a user, a query or a fragment, such as https://git.example.com
    "git.example.com" is not the address of a forge: write it with http:// or https://, without a user, a query or a fragment, such as https://git.example.com
    "bitbucket" is not a supported forge: use github, gitlab or gitea (also for Forgejo)
    "#);
    assert_eq!("Forgejo".parse(), Ok(ForgeKind::Gitea));
}

#[test]
fn a_replayed_body_is_refused_whatever_its_id_and_a_flood_has_a_limit() {
    let mut state = ForgeState::default();
    let refused = decide(&mut state, delivery("a", main_moved())).unwrap_err();
    assert_eq!(refused, ForgeRejection::NotConnected);
    state = connected();
    decide(&mut state, delivery("a", main_moved())).unwrap();
    let handled = ForgeInput::DeliveryHandled {
        number: 1,
        outcome: "run r1".to_owned(),
    };
    decide(&mut state, handled.clone()).unwrap();
    assert_eq!(decide(&mut state, handled).unwrap(), [], "once");
    let repeated = decide(&mut state, delivery("a", main_moved())).unwrap_err();
    assert_eq!(repeated, ForgeRejection::Repeated);
    for number in 0..500 {
        decide(&mut state, delivery(&number.to_string(), main_moved())).unwrap();
    }
    let full = decide(&mut state, delivery("more", main_moved())).unwrap_err();
    assert_eq!(full, ForgeRejection::TooMany(500));
}

#[test]
fn deliveries_and_reports_go_one_after_the_other() {
    let mut state = connected();
    decide(&mut state, delivery("a", main_moved())).unwrap();
    decide(&mut state, delivery("b", main_moved())).unwrap();
    let queue = |position, reports| ForgeInput::QueueReports { position, reports };
    let reports = vec![
        status("ci", ReportedProgress::Queued),
        status("ci", ReportedProgress::Success),
    ];
    decide(&mut state, queue(11, reports.clone())).unwrap();
    assert_eq!(decide(&mut state, queue(11, reports)).unwrap(), [], "once");
    assert_eq!(
        decide(
            &mut state,
            queue(9, vec![status("ci", ReportedProgress::Failure)])
        )
        .unwrap(),
        []
    );
    let keys = |state: &ForgeState| {
        let pending = ForgeAggregate::pending(state, Timestamp::UNIX_EPOCH);
        let keys = pending.effects.into_iter().map(|(key, _)| key.0);
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(&state), ["delivery-1", "report-1"]);
    let failed = ForgeInput::ReportFailed {
        number: 1,
        why: "422".to_owned(),
    };
    decide(&mut state, failed).unwrap();
    assert_eq!(keys(&state), ["delivery-1", "report-2"]);
    assert_eq!(state.failed.len(), 1, "shown");
    decide(&mut state, ForgeInput::Disconnect).unwrap();
    assert_eq!(keys(&state), Vec::<String>::new());
}

#[test]
fn a_pull_request_has_one_comment_that_shows_its_latest_runs() {
    let mut state = connected();
    let opened = pull_request("opened", 'b', "2026-05-01T10:00:00Z");
    let change = ForgeChange::PullRequest(Box::new(opened));
    decide(&mut state, delivery("a", change)).unwrap();
    let handled = ForgeInput::DeliveryHandled {
        number: 1,
        outcome: String::new(),
    };
    decide(&mut state, handled).unwrap();
    for (position, progress) in [
        (11, ReportedProgress::Queued),
        (12, ReportedProgress::Success),
    ] {
        let reports = vec![status("shipway/shop/ci", progress)];
        decide(&mut state, ForgeInput::QueueReports { position, reports }).unwrap();
    }
    let comments = state.reports.values();
    let comments = comments.filter(|queued| matches!(queued.report, ForgeReport::Comment { .. }));
    assert_eq!(
        comments.count(),
        1,
        "the second report changes the text of the first comment"
    );
    let comment = state.pull_requests[&7].comment(&"shop".parse().unwrap());
    insta::assert_snapshot!(comment, @r"
    <!-- shipway:shop -->
    **Shipway** · bbbbbbb

    | run | result |
    |---|---|
    | [shipway/shop/ci](https://ci.example.com/runs/shop/1) | ✅ 1 \| job &#64;all |
    ");
    let sent = ForgeInput::ReportSent {
        number: 2,
        remote: Some(99),
    };
    decide(&mut state, sent).unwrap();
    assert_eq!(state.pull_requests[&7].comment, Some(99));
    assert!(state.is_outdated(&pull_request("opened", 'a', "2026-05-01T09:59:59Z")));
    assert!(!state.is_outdated(&pull_request("synchronize", 'c', "2026-05-01T10:00:00Z")));
}

fn read(forge: ForgeKind, event: &str, payload: &Value) -> WebhookMeaning {
    read_webhook(forge, event, payload.to_string().as_bytes()).unwrap()
}

fn github_pull_request(head_repository: Value) -> Value {
    json!({
        "action": "synchronized", "number": 7,
        "pull_request": {
            "updated_at": "2026-05-01T10:00:00Z", "merged": false, "merge_commit_sha": commit('d'),
            "head": { "ref": "fix", "sha": commit('b'), "repo": head_repository },
            "base": { "ref": "main", "sha": commit('a'), "repo": { "id": 1 } },
        },
        "repository": { "id": 1, "full_name": "acme/shop" },
        "sender": { "login": "ada" },
    })
}

#[test]
fn a_pull_request_of_another_or_a_deleted_repository_is_from_a_fork() {
    for (head, origin) in [
        (json!({ "id": 1 }), PullRequestOrigin::SameRepository),
        (json!({ "id": 2 }), PullRequestOrigin::Fork),
        (Value::Null, PullRequestOrigin::Fork),
    ] {
        let meaning = read(ForgeKind::Gitea, "pull_request", &github_pull_request(head));
        let WebhookMeaning::Change { project, change } = meaning else {
            panic!("ignored");
        };
        let ForgeChange::PullRequest(change) = *change else {
            panic!("not a pull request");
        };
        assert_eq!((project.as_str(), change.origin), ("acme/shop", origin));
        assert_eq!(change.action, "synchronize");
        assert_eq!(change.payload["action"], "synchronize");
        assert_eq!(
            change.merged_as, None,
            "merge_commit_sha is a test merge until then"
        );
    }
}

#[test]
fn a_merge_request_becomes_a_pull_request() {
    let payload = json!({
        "object_kind": "merge_request",
        "user": { "username": "ada" },
        "project": { "path_with_namespace": "acme/tools/shop" },
        "object_attributes": {
            "iid": 7, "action": "update", "oldrev": commit('a'), "title": "Fix it",
            "source_branch": "fix", "target_branch": "main", "source_project_id": 5, "target_project_id": 4,
            "last_commit": { "id": commit('b') }, "updated_at": "2026-05-01 10:00:00 UTC",
            "url": "https://gitlab.example.com/acme/tools/shop/-/merge_requests/7",
        },
    });
    let WebhookMeaning::Change { project, change } =
        read(ForgeKind::Gitlab, "Merge Request Hook", &payload)
    else {
        panic!("ignored");
    };
    let ForgeChange::PullRequest(change) = *change else {
        panic!("not a pull request");
    };
    assert_eq!(project, "acme/tools/shop");
    assert_eq!((change.number, change.action.as_str()), (7, "synchronize"));
    assert_eq!(change.origin, PullRequestOrigin::Fork);
    assert_eq!(change.updated_at, "2026-05-01T10:00:00Z".parse().ok());
    assert_eq!(change.payload["pull_request"]["head"]["ref"], "fix");
    assert_eq!(change.payload["pull_request"]["base"]["ref"], "main");
}

#[test]
fn references_that_git_would_read_differently_are_ignored() {
    for reference in [
        "refs/heads/a:refs/heads/b",
        "+refs/heads/main",
        "refs/heads/../x",
        "refs/heads/",
        "refs/heads/-x",
        "refs/heads/a b",
        "refs/pull/1/head",
        "refs/heads/a.lock",
        "refs/heads/*",
        "refs/heads/a\n",
        "main",
    ] {
        let payload = json!({ "ref": reference, "repository": { "full_name": "acme/shop" } });
        let meaning = read(ForgeKind::Github, "push", &payload);
        assert!(
            matches!(meaning, WebhookMeaning::Ignored(_)),
            "{reference:?}"
        );
    }
    let tag = json!({ "ref": "refs/tags/v1.0", "user_username": "ada", "project": { "path_with_namespace": "acme/shop" } });
    let WebhookMeaning::Change { change, .. } = read(ForgeKind::Gitlab, "Tag Push Hook", &tag)
    else {
        panic!("ignored");
    };
    let expected = ForgeChange::Reference {
        reference: "refs/tags/v1.0".to_owned(),
        sender: Some("ada".to_owned()),
    };
    assert_eq!(*change, expected);
}

#[test]
fn other_events_are_ignored_and_broken_payloads_are_explained() {
    let ignored = read(ForgeKind::Github, "issues", &json!({}));
    let expected = "issues: only pushes, tags and pull requests are used".to_owned();
    assert_eq!(ignored, WebhookMeaning::Ignored(expected));
    let ping = read(ForgeKind::Github, "ping", &json!({ "zen": "x" }));
    assert!(matches!(ping, WebhookMeaning::Ignored(_)));
    for body in ["", "payload=%7B%7D", "[]", &"[".repeat(10_000)] {
        let error = read_webhook(ForgeKind::Github, "push", body.as_bytes()).unwrap_err();
        assert_eq!(error, PayloadError::NotJson);
    }
    let error = read_webhook(ForgeKind::Gitea, "pull_request", b"{\"action\":7}").unwrap_err();
    assert!(matches!(error, PayloadError::Field { .. }));
}
