//! The table in `docs/access.md`.

use std::{collections::BTreeSet, fs, path::Path};

use shipway_core::{
    access::{JobIdentity, Principal, PrincipalRole, Resource, RoleBinding, may},
    ids::UserName,
    target::ServiceEnvironment,
};

use super::{
    super::{openapi, query},
    DECLARED, PermissionObject, RouteAudience, RoutePermission,
};

/// Where a role must hold: the name of the first of these bindings that allows the request.
const SCOPES: [(&str, &str); 5] = [
    ("anywhere", ":cart/staging"),
    ("service", ":shop/staging"),
    ("environment", ":shop/production"),
    ("all environments", ":shop"),
    ("everywhere", ""),
];

/// Jobs that may send a request about `shop/r7`: the first of these that is allowed.
const JOBS: [(&str, &str); 3] = [
    ("all", "cart/r1"),
    ("of the service", "shop/r8"),
    ("of the run", "shop/r7"),
];

impl PermissionObject {
    fn sample(self) -> Resource {
        let (service, run) = ("shop".parse().unwrap(), "shop/r7".parse().unwrap());
        let rollout = "shop/ro7".parse().unwrap();
        let environment = "production".parse().unwrap();
        let events = |stream: Option<&str>| Resource::Events {
            stream: stream.map(str::to_owned),
        };
        match self {
            Self::Server => Resource::Server,
            Self::Service => Resource::Service(service),
            Self::Environment => Resource::Environment(ServiceEnvironment {
                service,
                environment,
            }),
            Self::Repository => Resource::Repository(service),
            Self::Run => Resource::Run(run),
            Self::Artifacts => Resource::Artifacts(run),
            Self::JobLogs => Resource::JobLogs(run),
            Self::RunTests => Resource::RunTests(run),
            Self::Rollout => Resource::Rollout(rollout),
            Self::RolloutControl => Resource::RolloutControl {
                rollout,
                environment,
            },
            Self::JobApproval => Resource::JobApproval {
                run,
                environment: Some(environment),
            },
            Self::RunDeployment => Resource::RunDeployment {
                run,
                environment: Some(environment),
            },
            Self::Analysis => Resource::Analysis(rollout),
            Self::Instance => Resource::Instance("shop.production.1.1".parse().unwrap()),
            Self::AllEvents => events(None),
            Self::RolloutEvents => events(Some("rollout/shop/7")),
            Self::RunEvents => events(Some("run/shop/7")),
            Self::UserEvents => events(Some("users")),
        }
    }
}

fn job(run: &str) -> JobIdentity {
    JobIdentity {
        run: run.parse().unwrap(),
        key: "build".parse().unwrap(),
        attempt: 1,
    }
}

impl RoutePermission {
    /// The request as the table has it.
    fn request(&self) -> String {
        let action = self.case.split(' ').next().unwrap_or_default();
        for parameter in ["{verb}", "{action}"] {
            if let Some(before) = self.path.strip_suffix(parameter) {
                let rest = self.case.strip_prefix(action).unwrap_or_default();
                return format!("`{} {before}{action}`{rest}", self.method);
            }
        }
        let request = format!("`{} {}` {}", self.method, self.path, self.case);
        request.trim_end().to_owned()
    }

    /// Where a role must hold.
    fn scope_of(&self, role: PrincipalRole) -> &'static str {
        let (verb, object) = match self.audience {
            RouteAudience::Everyone | RouteAudience::SignedIn => return "anywhere",
            RouteAudience::OwnHooks | RouteAudience::OwnJob(_) => return "–",
            RouteAudience::Permitted(verb, object) => (verb, object),
        };
        let user: UserName = "ada".parse().unwrap();
        let is_allowed = |scope: &str| {
            let binding: RoleBinding = format!("{role}{scope}").parse().unwrap();
            let principal = Principal::user(&user, Vec::new(), vec![binding]);
            may(&principal, verb, &object.sample()).is_ok()
        };
        let found = SCOPES.iter().find(|(_, scope)| is_allowed(scope));
        found.map_or("–", |(name, _)| name)
    }

    /// Which jobs may send it.
    fn jobs(&self) -> &'static str {
        let is_allowed = |run: &str| match self.audience {
            RouteAudience::Everyone | RouteAudience::SignedIn => true,
            RouteAudience::OwnHooks => false,
            RouteAudience::OwnJob(verb) => {
                let own = Resource::Job(job(run));
                may(&Principal::job(job(run)), verb, &own).is_ok()
            }
            RouteAudience::Permitted(verb, object) => {
                may(&Principal::job(job(run)), verb, &object.sample()).is_ok()
            }
        };
        let found = JOBS.iter().find(|(_, run)| is_allowed(run));
        found.map_or("–", |(name, _)| name)
    }

    fn row(&self) -> String {
        let roles = PrincipalRole::ALL.map(|role| self.scope_of(role));
        let instance = Principal::instance_process("shop.production.1.1");
        let instance = match self.audience {
            RouteAudience::Everyone | RouteAudience::SignedIn => "yes",
            RouteAudience::OwnHooks | RouteAudience::OwnJob(_) => "–",
            RouteAudience::Permitted(verb, object) => {
                match may(&instance, verb, &object.sample()).is_ok() {
                    true => "yes",
                    false => "–",
                }
            }
        };
        let anonymous = match self.audience {
            RouteAudience::Everyone => "yes",
            _ => "–",
        };
        let request = self.request();
        let roles = roles.join(" | ");
        let jobs = self.jobs();
        format!("| {request} | {roles} | {jobs} | {instance} | {anonymous} |\n")
    }
}

#[test]
fn the_table_of_the_docs_is_what_the_code_decides() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/access.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- requests -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- /requests -->").unwrap();
    let mut expected = "| request | viewer | deployer | approver | admin | jobs | instances | without login |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for declared in DECLARED {
        expected += &declared.row();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let page = format!("{before}<!-- requests -->\n{expected}<!-- /requests -->{after}");
        fs::write(&path, page).unwrap();
    } else {
        assert_eq!(
            table, expected,
            "docs/access.md is stale: run this test with UPDATE_DOCS=1, and read what changes"
        );
    }
}

/// The paths that source files pass to `.route(`, those of the API's description, and those of the settings, which are a list.
fn registered_paths() -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = openapi().paths.paths.into_keys().collect();
    paths.extend(crate::page_handlers::settings_addresses().map(str::to_owned));
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            let (code, _) = source
                .split_once("#[cfg(test)]\nmod ")
                .unwrap_or((&source, ""));
            for call in code.split(".route(").skip(1) {
                let literal = call.trim_start().strip_prefix("\"/");
                let path = literal.and_then(|rest| rest.split('"').next());
                paths.extend(path.map(|path| format!("/{path}")));
            }
        }
    }
    paths
}

#[test]
fn every_route_is_declared_and_every_declaration_has_a_route() {
    let declared: BTreeSet<String> = DECLARED.iter().map(|it| it.path.to_owned()).collect();
    assert_eq!(declared, registered_paths());
}

#[test]
fn the_description_and_the_declarations_have_the_same_methods() {
    let description = openapi();
    let described: BTreeSet<(String, String)> = query::operations(&description)
        .into_iter()
        .map(|(method, path, _)| (method.to_string(), path.to_owned()))
        .collect();
    let is_described = |path: &str| path.starts_with("/api/v1/") || path.starts_with("/hooks/");
    let declared = DECLARED.iter().filter(|it| is_described(it.path));
    let declared = declared.map(|it| (it.method.to_owned(), it.path.to_owned()));
    assert_eq!(described, declared.collect::<BTreeSet<_>>());
}

#[test]
fn requests_of_the_table_have_different_names() {
    let names: BTreeSet<String> = DECLARED.iter().map(RoutePermission::request).collect();
    assert_eq!(names.len(), DECLARED.len());
}
