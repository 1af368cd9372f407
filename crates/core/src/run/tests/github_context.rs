//! The `github` context of a run: its repository, and what a payload says.

use serde_json::json;
use shipway_workflow::expr::{Contexts, Template};

use super::*;
use crate::source_repository::SourceRepository;

/// Text with expressions, as a job of the run sees it.
fn resolved(spec: RunSpec, text: &str) -> String {
    let log = Log::open(spec);
    let spec = job_spec(&log.state, &job("build"), around()).unwrap();
    let known = spec.contexts.iter();
    let contexts = known.fold(Contexts::new(), |all, (name, value)| {
        all.with(name, value.clone())
    });
    let template = Template::parse(text, 0).unwrap();
    template.resolve_text(&contexts).unwrap()
}

const REPOSITORY: &str = "${{ github.repository }} ${{ github.repository_owner }} ${{ github.server_url }} ${{ github.api_url }} ${{ github.workflow_ref }} ${{ github.event.repository.full_name }} ${{ github.event.repository.default_branch }}";

#[test]
fn a_run_is_of_the_configured_repository() {
    let named = RunSpec {
        repository: Some(SourceRepository::on_github("acme/app")),
        default_branch: Some("next".to_owned()),
        location: None,
        ..spec(WORKFLOW)
    };
    assert_eq!(
        resolved(named, REPOSITORY),
        "acme/app acme https://github.com https://api.github.com acme/app/.github/workflows/ci.yml@refs/heads/main acme/app next"
    );
    // The worker adds the address of its server.
    assert_eq!(
        resolved(spec(WORKFLOW), REPOSITORY),
        "shipway/shop shipway  https://api.github.com shipway/shop/.github/workflows/ci.yml@refs/heads/main shipway/shop main"
    );
}

#[test]
fn a_payload_is_completed_with_what_every_event_has() {
    let pull = RunSpec {
        event: "pull_request".to_owned(),
        reference: "refs/pull/3/merge".to_owned(),
        payload: Some(json!({
            "number": 3, "sender": { "login": "eve", "id": 5 },
            "pull_request": { "base": { "ref": "main" }, "head": { "ref": "fix" } },
        })),
        ..spec(WORKFLOW)
    };
    let text = "${{ github.ref_name }} ${{ github.base_ref }} ${{ github.head_ref }} ${{ github.actor_id }} ${{ github.repository_id }} ${{ github.event.number }} ${{ github.event.repository.name }} ${{ github.event.sender.login }} ${{ toJSON(github.event.inputs) }}";
    assert_eq!(resolved(pull, text), "3/merge main fix 5 0 3 shop eve null");
}
