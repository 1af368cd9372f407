//! Tests of the rule, of scopes and of the names of principals.

use shipway_workflow::job::JobKey;

use super::*;
use crate::{aggregate::Actor, ids::RunId, principal_id::PrincipalId};

#[test]
fn an_event_of_a_job_with_a_long_name_is_read_again() {
    let job = JobIdentity {
        run: "shop/r7".parse().unwrap(),
        key: JobKey::new(&"a".repeat(5_000), None),
        attempt: 1,
    };
    let actor = Principal::job(job).actor();
    let text = serde_json::to_string(&actor).unwrap();
    assert_eq!(serde_json::from_str::<Actor>(&text).unwrap(), actor);
}

fn job() -> Principal {
    Principal::job(JobIdentity {
        run: "shop/r7".parse().unwrap(),
        key: "test.2".parse().unwrap(),
        attempt: 2,
    })
}

fn run(id: &str) -> RunId {
    id.parse().unwrap()
}

fn deployment(run: RunId) -> Resource {
    let environment = None;
    Resource::RunDeployment { run, environment }
}

fn rollout(id: &str) -> Resource {
    Resource::Rollout(id.parse().unwrap())
}

fn events(stream: Option<&str>) -> Resource {
    let stream = stream.map(str::to_owned);
    Resource::Events { stream }
}

#[test]
fn a_job_may_deploy_its_own_run_and_read_its_own_service_and_nothing_else() {
    let service = |name: &str| Resource::Service(name.parse().unwrap());
    let attempt = |run: &str, attempt| {
        Resource::Job(JobIdentity {
            run: run.parse().unwrap(),
            key: "test.2".parse().unwrap(),
            attempt,
        })
    };
    for (verb, resource, is_allowed) in [
        (Verb::Deploy, deployment(run("shop/r7")), true),
        (Verb::Read, Resource::Run(run("shop/r6")), true),
        (Verb::Read, Resource::Artifacts(run("shop/r6")), true),
        (Verb::Read, rollout("shop/ro3"), true),
        (Verb::Read, events(Some("rollout/shop/3")), true),
        (Verb::FetchInputs, attempt("shop/r7", 2), true),
        (Verb::FetchInputs, attempt("shop/r7", 1), false),
        (Verb::FetchInputs, attempt("shop/r6", 2), false),
        (Verb::SendRecords, attempt("shop/r7", 2), true),
        (Verb::SendRecords, attempt("shop/r7", 1), false),
        (Verb::Read, attempt("shop/r7", 2), false),
        (Verb::Deploy, deployment(run("shop/r6")), false),
        (Verb::Deploy, deployment(run("cart/r7")), false),
        (Verb::ForceDeploy, deployment(run("shop/r7")), false),
        (Verb::Deploy, service("shop"), false),
        (Verb::Read, service("shop"), false),
        (Verb::Read, Resource::Run(run("cart/r7")), false),
        (Verb::Read, Resource::JobLogs(run("shop/r7")), false),
        (Verb::Read, rollout("cart/ro3"), false),
        (Verb::Read, events(Some("rollout/cart/3")), false),
        (Verb::Read, events(Some("rollout/shopping/3")), false),
        (Verb::Read, events(Some("run/shop/7")), false),
        (Verb::Read, events(None), false),
        (Verb::Read, Resource::Server, false),
        (Verb::Approve, rollout("shop/ro3"), false),
        (Verb::Approve, Resource::Run(run("shop/r7")), false),
        (Verb::ShowSecrets, Resource::Run(run("shop/r7")), false),
        (
            Verb::Push,
            Resource::Repository("shop".parse().unwrap()),
            false,
        ),
    ] {
        let found = may(&job(), verb, &resource);
        assert_eq!(found.is_ok(), is_allowed, "{verb} {resource}: {found:?}");
    }
}

#[test]
fn a_refusal_says_who_what_and_what_to_do() {
    let refused = |principal: &Principal, verb, resource: &Resource| {
        may(principal, verb, resource).unwrap_err().to_string()
    };
    let shop = Resource::Run(run("shop/r7"));
    assert_eq!(
        refused(&job(), Verb::Approve, &shop),
        "a job may not approve run shop/r7: test.2 of shop/r7 may only deploy shop from its own run, and read its runs and rollouts; a person must do this"
    );
    assert_eq!(
        refused(&job(), Verb::ForceDeploy, &deployment(run("shop/r7"))),
        "test.2 of shop/r7 may only deploy artifacts of its own run (`\"run\": \"7\"`), without force"
    );
    let mut guest = Principal::person("eve");
    guest.roles.clear();
    assert_eq!(
        refused(&guest, Verb::Read, &Resource::Server),
        "eve may not read this server: this needs the role viewer, or admin, for the whole server; ask an administrator of this server for it (`shipway user set NAME --add-role viewer`)"
    );
}

#[test]
fn a_process_of_a_job_may_nothing_and_an_instance_may_report_metrics() {
    let shop = Resource::Service("shop".parse().unwrap());
    let process = Principal::job_process("build of shop/r7");
    let instance = Principal::instance_process("shop.production.3.1");
    assert!(may(&process, Verb::ReportMetrics, &shop).is_err());
    assert!(may(&instance, Verb::ReportMetrics, &shop).is_ok());
    assert!(may(&instance, Verb::Deploy, &shop).is_err());
    for principal in [
        Principal::person("ada"),
        Principal::unnamed_person(),
        Principal::server_token(None),
        Principal::system(),
    ] {
        assert!(may(&principal, Verb::ForceDeploy, &shop).is_ok());
    }
}

#[test]
fn ids_are_stable_and_actors_have_them() {
    assert_eq!(job().id.as_str(), "job:shop/r7/test.2/2");
    assert_eq!(job().actor().principal(), job().id);
    let ada = Principal::person("ada");
    assert_eq!(ada.actor().principal().as_str(), "person:ada");
    assert_eq!(ada.actor().to_string(), "ada");
    assert_eq!(Principal::unnamed_person().actor().to_string(), "someone");
    assert_eq!(Principal::system().actor().principal().as_str(), "system");
    let read = serde_json::from_str::<PrincipalId>("\"person:ada\"");
    assert_eq!(read.unwrap(), ada.id);
    assert!("".parse::<PrincipalId>().is_err() && "a\nb".parse::<PrincipalId>().is_err());
}

/// A person with these roles.
fn person(roles: &[&str]) -> Principal {
    let mut principal = Principal::person("eve");
    principal.roles = roles.iter().map(|it| it.parse().unwrap()).collect();
    principal
}

fn environment_resource(service: &str, environment: &str) -> Resource {
    Resource::Environment(crate::target::ServiceEnvironment {
        service: service.parse().unwrap(),
        environment: environment.parse().unwrap(),
    })
}

#[test]
fn each_role_may_do_what_it_is_for_and_includes_viewing() {
    let production = environment_resource("shop", "production");
    for verb in Verb::ALL {
        for role in PrincipalRole::ALL {
            let expected = match (role, required_role(verb)) {
                (PrincipalRole::Admin, _) | (_, PrincipalRole::Viewer) => true,
                (own, required) => own == required,
            };
            let found = may(&person(&[role.as_str()]), verb, &production);
            assert_eq!(found.is_ok(), expected, "{role} {verb}: {found:?}");
        }
        assert!(may(&person(&[]), verb, &production).is_err(), "{verb}");
    }
}

#[test]
fn a_role_holds_for_its_service_and_environment_only() {
    let service = Resource::Service("shop".parse().unwrap());
    for (role, verb, resource, is_allowed) in [
        (
            "deployer:shop",
            Verb::Deploy,
            environment_resource("shop", "staging"),
            true,
        ),
        (
            "deployer:shop",
            Verb::Deploy,
            environment_resource("cart", "staging"),
            false,
        ),
        ("deployer:shop", Verb::Deploy, service.clone(), true),
        (
            "deployer:shop/staging",
            Verb::Deploy,
            service.clone(),
            false,
        ),
        (
            "deployer:shop/staging",
            Verb::Deploy,
            environment_resource("shop", "staging"),
            true,
        ),
        (
            "deployer:shop/staging",
            Verb::Deploy,
            environment_resource("shop", "production"),
            false,
        ),
        (
            "approver:*/staging",
            Verb::Approve,
            environment_resource("cart", "staging"),
            true,
        ),
        (
            "approver:*/staging",
            Verb::Approve,
            environment_resource("cart", "production"),
            false,
        ),
        ("viewer:shop/staging", Verb::Read, service.clone(), true),
        (
            "viewer:shop/staging",
            Verb::Read,
            environment_resource("shop", "production"),
            true,
        ),
        ("viewer:shop/staging", Verb::Read, rollout("shop/ro3"), true),
        (
            "viewer:shop/staging",
            Verb::Read,
            rollout("cart/ro3"),
            false,
        ),
        (
            "viewer:shop",
            Verb::Read,
            events(Some("rollout/shop/3")),
            true,
        ),
        (
            "viewer:shop",
            Verb::Read,
            events(Some("rollout/cart/3")),
            false,
        ),
        (
            "viewer:shop",
            Verb::Read,
            events(Some("addresses/claims")),
            false,
        ),
        ("viewer", Verb::Read, events(Some("addresses/claims")), true),
        ("viewer", Verb::Read, events(Some("access/server")), false),
        ("deployer", Verb::Read, events(Some("request/0123")), false),
        (
            "admin:shop",
            Verb::Read,
            events(Some("access/server")),
            false,
        ),
        ("admin", Verb::Read, events(Some("access/server")), true),
        ("viewer:shop", Verb::Read, Resource::Server, true),
        ("admin:shop", Verb::Prune, Resource::Server, false),
        ("admin:shop", Verb::Delete, service.clone(), true),
        ("admin", Verb::Prune, Resource::Server, true),
    ] {
        let found = may(&person(&[role]), verb, &resource);
        assert_eq!(
            found.is_ok(),
            is_allowed,
            "{role} {verb} {resource}: {found:?}"
        );
    }
    let instance = Resource::Instance("shop.production.3.1".parse().unwrap());
    assert!(may(&person(&["viewer:shop/staging"]), Verb::Read, &instance).is_err());
    assert!(may(&person(&["viewer:shop/production"]), Verb::Read, &instance).is_ok());
}

#[test]
fn a_limit_takes_permissions_away_and_gives_none() {
    let mut token = person(&["deployer:shop"]);
    token.limit = Some(vec!["admin".parse().unwrap()]);
    assert!(
        may(
            &token,
            Verb::Deploy,
            &environment_resource("shop", "staging")
        )
        .is_ok()
    );
    assert!(
        may(
            &token,
            Verb::Delete,
            &environment_resource("shop", "staging")
        )
        .is_err()
    );
    token.limit = Some(vec!["viewer".parse().unwrap()]);
    assert!(
        may(
            &token,
            Verb::Deploy,
            &environment_resource("shop", "staging")
        )
        .is_err()
    );
    assert!(may(&token, Verb::Read, &environment_resource("shop", "staging")).is_ok());
    token.limit = Some(vec!["deployer:cart".parse().unwrap()]);
    assert!(may(&token, Verb::Read, &environment_resource("shop", "staging")).is_err());
    assert_eq!(
        visible_services(&token),
        VisibleServices::Only(std::collections::BTreeSet::new())
    );
}

#[test]
fn roles_are_written_as_they_are_read_and_nothing_else_is_one() {
    for text in [
        "viewer",
        "deployer:shop",
        "deployer:shop/staging",
        "approver:*/production",
    ] {
        assert_eq!(text.parse::<RoleBinding>().unwrap().to_string(), text);
    }
    let everywhere: RoleBinding = "admin:*/*".parse().unwrap();
    assert_eq!(everywhere.to_string(), "admin");
    for text in [
        "",
        "Admin",
        "root",
        "viewer:",
        "viewer:a/b/c",
        "viewer:shop/",
        "viewer:Shop",
    ] {
        assert!(text.parse::<RoleBinding>().is_err(), "{text}");
    }
}
