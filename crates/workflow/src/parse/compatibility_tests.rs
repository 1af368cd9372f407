//! What GitHub accepts beyond the plain forms: newest syntax, ignored keys, names and containers that are expressions.

use shipway_syntax::SourceFile;

use crate::{
    expr::{Contexts, ExprValue},
    model::{StepAction, Workflow},
};

fn read(text: &str) -> (Option<Workflow>, Vec<String>) {
    let source = SourceFile::new("w.yml", text);
    let parsed = crate::parse(&source);
    let shown = |it: &shipway_syntax::Diagnostic| format!("[{}] {}", it.code, it.one_line(&source));
    let problems = parsed.diagnostics.iter().map(shown).collect();
    (parsed.workflow, problems)
}

fn accepted(text: &str) -> Workflow {
    let (workflow, problems) = read(text);
    assert_eq!(problems, [""; 0], "{text}");
    workflow.unwrap()
}

fn job(keys: &str) -> String {
    format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{{ run: a }}]\n{keys}")
}

fn contexts() -> Contexts<'static> {
    let github = ExprValue::object([("event_name", ExprValue::from("push"))]);
    Contexts::new().with("github", github)
}

#[test]
fn filters_that_github_ignores_are_warnings() {
    let (workflow, problems) = read(
        "on:
  workflow_dispatch: { paths: [src] }
  release: { types: [published], tags: ['v*'] }
  create: { branches: }
jobs: { a: { runs-on: x, steps: [{ run: a }] } }
",
    );
    assert!(workflow.is_some());
    assert_eq!(
        problems,
        [
            "[ignored-key] w.yml:2:24: warning: `paths` has no effect on `workflow_dispatch`, as at GitHub; the keys here are inputs",
            "[ignored-key] w.yml:3:34: warning: `tags` has no effect on `release`, as at GitHub; the keys here are types",
            "[ignored-key] w.yml:4:13: warning: `branches` has no effect on `create`, as at GitHub; `create` has no filters: remove it",
        ]
    );
}

#[test]
fn mistyped_filters_of_events_with_filters_stay_errors() {
    for event in ["push", "pull_request", "workflow_run"] {
        let (workflow, problems) = read(&format!(
            "on: {{ {event}: {{ branch: main }} }}\njobs: {{ a: {{ runs-on: x, steps: [{{ run: a }}] }} }}\n"
        ));
        assert!(
            workflow.is_none() && problems[0].starts_with("[unknown-key]"),
            "{problems:?}"
        );
    }
}

#[test]
fn the_newest_permissions_and_activity_types_are_known() {
    accepted(
        "on: { pull_request: { types: [stacked] }, issues: { types: [field_added, field_removed] } }
permissions: { code-quality: write, drives: read }
jobs: { a: { runs-on: x, steps: [{ run: a }] } }
",
    );
}

#[test]
fn files_of_the_own_commit_are_named_with_a_dollar() {
    let workflow = accepted(
        "on: push
jobs:
  called: { uses: $/.github/workflows/other.yml }
  a: { runs-on: x, steps: [{ uses: $/tools/pack }] }
",
    );
    let step = &workflow.jobs[1].steps[0];
    assert_eq!(step.id, "__self");
    assert!(matches!(&step.action, StepAction::Uses { action, .. } if action == "$/tools/pack"));
    let call = workflow.jobs[0].calls.as_ref().unwrap();
    let name = |caller| crate::graph::resolve_call_name(caller, &call.workflow);
    assert_eq!(
        name(".github/workflows/w.yml"),
        ".github/workflows/other.yml"
    );
    assert_eq!(
        name("o/r/.github/workflows/w.yml@v1"),
        "o/r/.github/workflows/other.yml@v1"
    );
}

#[test]
fn own_actions_of_another_repositorys_file_are_that_repositorys() {
    let mut workflow =
        accepted("on: push\njobs: { a: { runs-on: x, steps: [{ uses: $/b }, { uses: ./c }] } }\n");
    let steps = &mut workflow.jobs[0].steps;
    crate::model::qualify_own_actions(steps, "o/r", "v1");
    let names = steps.iter().map(crate::model::WorkflowStep::title);
    assert_eq!(names.collect::<Vec<_>>(), ["Run o/r/b@v1", "Run ./c"]);
}

#[test]
fn a_job_may_have_no_steps() {
    let workflow = accepted("on: push\njobs: { a: { runs-on: x }, b: { runs-on: x, needs: a } }\n");
    assert!(workflow.jobs.iter().all(|job| job.steps.is_empty()));
}

#[test]
fn names_in_tables_may_be_expressions() {
    let workflow = accepted(&job("    env:
      A: one
      ${{ format('ON_{0}', github.event_name) }}: two
      ${{ insert }}: ${{ fromJSON('{\"C\":3}') }}
      ${{ INSERT }}: { D: four }
"));
    let table = &workflow.jobs[0].env;
    let entries = table.resolve(&contexts()).unwrap();
    let entries: Vec<String> = entries
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(entries, ["A=one", "ON_push=two", "C=3", "D=four"]);
    let json = serde_json::to_string(table).unwrap();
    assert_eq!(*table, serde_json::from_str(&json).unwrap(), "{json}");
}

#[test]
fn names_that_come_out_wrong_are_named() {
    let error = |env: &str| {
        let workflow = accepted(&job(&format!("    env: {env}\n")));
        workflow.jobs[0]
            .env
            .resolve(&contexts())
            .unwrap_err()
            .message
    };
    assert_eq!(
        error("{ push: 1, '${{ github.event_name }}': 2 }"),
        "`push` is already defined"
    );
    assert_eq!(error("{ '${{ github.nothing }}': 2 }"), "the name is empty");
    assert_eq!(
        error("{ '${{ insert }}': text }"),
        "only a mapping can be inserted, not a value of kind string"
    );
    let (_, problems) = read(&job(
        "    env: { '${{ matrix.a }}': 1, '${{ secret.b }}': 2 }\n",
    ));
    assert!(
        problems[0].contains("unknown name `secret`"),
        "{problems:?}"
    );
    let (_, problems) = read(&job("    env: { '${{ github.ref }}': [1] }\n"));
    assert!(problems[0].contains("[wrong-type]"), "{problems:?}");
}

#[test]
fn containers_may_be_expressions() {
    let services = |keys: &str| {
        let workflow = accepted(&job(keys));
        let services = workflow.jobs[0].services.resolve(&contexts()).unwrap();
        let shown = services.iter().map(|(name, container)| {
            let ports = container
                .ports
                .iter()
                .map(|port| port.text())
                .collect::<Vec<_>>();
            let env = container.env.resolve(&contexts()).unwrap();
            format!("{name} {} {ports:?} {env:?}", container.image)
        });
        shown.collect::<Vec<_>>()
    };
    let whole = r#"    services: ${{ fromJSON('{"db":{"image":"postgres:17","ports":[5432],"env":{"A":1}},"none":""}') }}
"#;
    assert_eq!(services(whole), [r#"db postgres:17 ["5432"] [("A", "1")]"#]);
    let one = r#"    services: { cache: '${{ fromJSON(''{"image": "valkey:8"}'') }}' }
"#;
    assert_eq!(services(one), ["cache valkey:8 [] []"]);
    let ports = r#"    services: { web: { image: nginx, ports: '${{ fromJSON(''["80:80", 81]'') }}' } }
"#;
    assert_eq!(services(ports), [r#"web nginx ["80:80", "81"] []"#]);
    assert_eq!(services("    services: ${{ fromJSON('{}') }}\n"), [""; 0]);
    let credentials =
        "    container: { image: a, credentials: '${{ fromJSON(secrets.LOGIN) }}' }\n";
    let container = accepted(&job(credentials)).jobs[0]
        .container
        .clone()
        .unwrap();
    assert!(!container.credentials.is_empty());
    let workflow = accepted(&job(
        "    container: ${{ fromJSON('{\"image\":\"node:22\"}') }}\n",
    ));
    let container = workflow.jobs[0].container.as_ref().unwrap();
    let container = container.resolve(&contexts()).unwrap().unwrap();
    assert_eq!(container.image.text(), "node:22");
}
