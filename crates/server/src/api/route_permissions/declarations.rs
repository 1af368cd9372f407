//! The declarations.

use shipway_core::access::Verb;

use super::{PermissionObject, RouteAudience, RoutePermission};

/// One line for each kind of request: method, path, optionally the case, and the verb with its object.
macro_rules! declare {
    ($($method:ident $path:literal $($case:literal)? => $audience:ident $(($verb:ident $(on $object:ident)?))?;)*) => {
        &[$(RoutePermission {
            method: stringify!($method),
            path: $path,
            case: declare!(@case $($case)?),
            audience: declare!(@audience $audience $($verb $($object)?)?),
        }),*]
    };
    (@case) => { "" };
    (@case $case:literal) => { $case };
    (@audience $audience:ident) => { RouteAudience::$audience };
    (@audience $audience:ident $verb:ident) => { RouteAudience::$audience(Verb::$verb) };
    (@audience $audience:ident $verb:ident $object:ident) => {
        RouteAudience::$audience(Verb::$verb, PermissionObject::$object)
    };
}

/// All requests that the router answers, except of unknown addresses. Those that end something are the last.
pub(super) const DECLARED: &[RoutePermission] = declare! {
    GET "/api/v1/services" => Permitted(Read on Server);
    GET "/api/v1/services/{service}" => Permitted(Read on Service);
    GET "/api/v1/services/{service}/releases" => Permitted(Read on Service);
    POST "/api/v1/services/{service}/releases/{number}/{action}" "reject" => Permitted(Reject on Service);
    POST "/api/v1/services/{service}/releases/{number}/{action}" "accept" => Permitted(Approve on Service);
    GET "/api/v1/services/{service}/plan" => Permitted(Read on Environment);
    POST "/api/v1/services/{service}/deploys" "a release" => Permitted(Deploy on Environment);
    POST "/api/v1/services/{service}/deploys" "by force" => Permitted(ForceDeploy on Environment);
    POST "/api/v1/services/{service}/deploys" "what a run built" => Permitted(Deploy on RunDeployment);
    POST "/api/v1/services/{service}/rollbacks" => Permitted(Rollback on Environment);
    POST "/api/v1/services/{service}/runs" => Permitted(Dispatch on Service);
    GET "/api/v1/environments" => Permitted(Read on Server);
    POST "/api/v1/services/{service}/environments/{environment}/resume" => Permitted(Resume on Environment);
    GET "/api/v1/addresses" => Permitted(Read on Server);
    POST "/api/v1/services/{service}/metrics" => Permitted(ReportMetrics on Environment);
    GET "/api/v1/matrix" => Permitted(Read on Server);
    GET "/api/v1/releases" => Permitted(Read on Server);
    GET "/api/v1/runs" => Permitted(Read on Server);
    GET "/api/v1/runs/{service}/{number}" => Permitted(Read on Run);
    POST "/api/v1/runs/{service}/{number}/rerun" => Permitted(Rerun on Run);
    GET "/api/v1/runs/{service}/{number}/artifacts/{name}" => Permitted(Read on Artifacts);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/shell" "without secrets" => Permitted(OpenShell on Run);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/shell" "with secrets" => Permitted(ShowSecrets on Run);
    GET "/api/v1/runs/{service}/{number}/jobs/{key}/log" => Permitted(Read on JobLogs);
    GET "/api/v1/runs/{service}/{number}/jobs/{key}/log/lines" => Permitted(Read on JobLogs);
    GET "/api/v1/runs/{service}/{number}/jobs/{key}/log/search" => Permitted(Read on JobLogs);
    GET "/api/v1/runs/{service}/{number}/tests" => Permitted(Read on RunTests);
    GET "/api/v1/runs/{service}/{number}/why" => Permitted(Read on RunTests);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}" "approve" => Permitted(Approve on JobApproval);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}" "reject" => Permitted(Reject on JobApproval);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}" "break_glass" => Permitted(Approve on JobApproval);
    POST "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}" "review" => Permitted(Approve on JobApproval);
    GET "/api/v1/instances/{name}/log" => Permitted(Read on Instance);
    GET "/api/v1/services/{service}/tests" => Permitted(Read on Service);
    POST "/api/v1/services/{service}/tests/quarantine" => Permitted(Quarantine on Service);
    POST "/api/v1/services/{service}/tests/release" => Permitted(Quarantine on Service);
    GET "/api/v1/rollouts" "of all services" => Permitted(Read on Server);
    GET "/api/v1/rollouts" "of a service" => Permitted(Read on Service);
    GET "/api/v1/rollouts/{service}/{number}" => Permitted(Read on Rollout);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "pause" => Permitted(Pause on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "resume" => Permitted(Resume on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "approve" => Permitted(Approve on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "reject" => Permitted(Reject on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "break_glass" => Permitted(Approve on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "review" => Permitted(Approve on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "promote" => Permitted(Promote on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "abort" => Permitted(Abort on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/{verb}" "retry" => Permitted(Retry on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/links" "to approve" => Permitted(Approve on RolloutControl);
    POST "/api/v1/rollouts/{service}/{number}/links" "to reject" => Permitted(Reject on RolloutControl);
    GET "/api/v1/rollouts/{service}/{number}/analysis" => Permitted(Read on Analysis);
    GET "/api/v1/rollouts/{service}/{number}/analysis/{metric}" => Permitted(Read on Analysis);
    GET "/api/v1/approvals" => Permitted(Read on Server);
    GET "/api/v1/delivery" => Permitted(Read on Server);
    GET "/api/v1/events" "of all streams" => Permitted(Read on AllEvents);
    GET "/api/v1/events" "of a rollout" => Permitted(Read on RolloutEvents);
    GET "/api/v1/events" "of a run" => Permitted(Read on RunEvents);
    GET "/api/v1/events" "of users" => Permitted(Read on UserEvents);
    GET "/api/v1/prune" => Permitted(Prune on Server);
    POST "/api/v1/prune" => Permitted(Prune on Server);
    GET "/api/v1/audit" => Permitted(ReadAudit on Server);
    GET "/api/v1/secrets" "of all services" => Permitted(ReadSecrets on Server);
    GET "/api/v1/secrets" "of a service" => Permitted(ReadSecrets on Service);
    PUT "/api/v1/secrets/{name}" "of all services" => Permitted(ChangeSecrets on Server);
    PUT "/api/v1/secrets/{name}" "of a service" => Permitted(ChangeSecrets on Service);
    PUT "/api/v1/secrets/{name}" "of an environment" => Permitted(ChangeSecrets on Environment);
    DELETE "/api/v1/secrets/{name}" => Permitted(ChangeSecrets on Environment);
    POST "/api/v1/secrets/import" => Permitted(ChangeSecrets on Environment);
    POST "/api/v1/secrets/rotate" => Permitted(ChangeSecrets on Server);
    GET "/api/v1/variables" "of all services" => Permitted(Read on Server);
    GET "/api/v1/variables" "of a service" => Permitted(Read on Service);
    PUT "/api/v1/variables/{name}" => Permitted(ChangeSecrets on Environment);
    DELETE "/api/v1/variables/{name}" => Permitted(ChangeSecrets on Environment);
    GET "/api/v1/users" => Permitted(ManageUsers on Server);
    POST "/api/v1/users" => Permitted(ManageUsers on Server);
    GET "/api/v1/users/{user}" => Permitted(ManageUsers on Server);
    PUT "/api/v1/users/{user}" => Permitted(ManageUsers on Server);
    DELETE "/api/v1/users/{user}" => Permitted(ManageUsers on Server);
    POST "/api/v1/users/{user}/password" "of the caller" => Permitted(UseAccount on Server);
    POST "/api/v1/users/{user}/password" "of another user" => Permitted(ManageUsers on Server);
    POST "/api/v1/users/{user}/{action}" "disable" => Permitted(ManageUsers on Server);
    POST "/api/v1/users/{user}/{action}" "enable" => Permitted(ManageUsers on Server);
    POST "/api/v1/users/{user}/{action}" "logout" => Permitted(ManageUsers on Server);
    POST "/api/v1/users/{user}/{action}" "logout of the caller" => Permitted(UseAccount on Server);
    GET "/api/v1/groups" => Permitted(ManageUsers on Server);
    POST "/api/v1/groups" => Permitted(ManageUsers on Server);
    GET "/api/v1/groups/{group}" => Permitted(ManageUsers on Server);
    PUT "/api/v1/groups/{group}" => Permitted(ManageUsers on Server);
    DELETE "/api/v1/groups/{group}" => Permitted(ManageUsers on Server);
    GET "/api/v1/tokens" => Permitted(UseAccount on Server);
    POST "/api/v1/tokens" "for the caller" => Permitted(UseAccount on Server);
    POST "/api/v1/tokens" "for another user, or without an end" => Permitted(ManageUsers on Server);
    DELETE "/api/v1/tokens/{token}" => Permitted(UseAccount on Server);
    GET "/api/v1/me" => Permitted(UseAccount on Server);
    POST "/api/v1/login" => Everyone;
    GET "/api/v1/forges/{repository}" => Permitted(Read on Repository);
    PUT "/api/v1/forges/{repository}" => Permitted(ConnectForge on Repository);
    DELETE "/api/v1/forges/{repository}" => Permitted(ConnectForge on Repository);
    GET "/api/v1/notifications" => Permitted(Read on Server);
    GET "/api/v1/notifications/{channel}/dead-letters" => Permitted(Read on Environment);
    POST "/api/v1/notifications/{channel}/resend" => Permitted(ManageNotifications on Environment);
    POST "/api/v1/notifications/{channel}/test" => Permitted(ManageNotifications on Environment);
    DELETE "/api/v1/notifications/{channel}/dead-letters/{number}" => Permitted(ManageNotifications on Environment);
    POST "/hooks/{forge}" => Everyone;
    GET "/api/openapi.json" => Permitted(Read on Server);

    GET "/" => Permitted(Browse on Server);
    GET "/overview/changes" => Permitted(Browse on Server);
    GET "/services/{service}" => Permitted(Browse on Service);
    GET "/services/{service}/releases/{number}" => Permitted(Browse on Service);
    GET "/services/{service}/compare" => Permitted(Browse on Service);
    GET "/services/{service}/environments/{environment}" => Permitted(Browse on Environment);
    GET "/instances/{name}" => Permitted(Read on Instance);
    GET "/instances/{name}/log" => Permitted(Read on Instance);
    GET "/badge/{service}/{file}" => Permitted(Browse on Environment);
    GET "/runs" => Permitted(Browse on Server);
    GET "/runs/{service}/{number}" => Permitted(Browse on Run);
    GET "/runs/{service}/{number}/log" => Permitted(Read on JobLogs);
    GET "/rollouts" => Permitted(Browse on Server);
    GET "/rollouts/{service}/{number}" => Permitted(Browse on Rollout);
    GET "/releases" => Permitted(Browse on Server);
    GET "/approvals" => Permitted(Browse on Server);
    GET "/settings" => Permitted(Browse on Server);
    GET "/settings/users" => Permitted(ManageUsers on Server);
    POST "/settings/users" "a user" => Permitted(ManageUsers on Server);
    GET "/settings/groups" => Permitted(ManageUsers on Server);
    POST "/settings/groups" "a group" => Permitted(ManageUsers on Server);
    GET "/settings/tokens" => Permitted(UseAccount on Server);
    POST "/settings/tokens" "a token of the caller" => Permitted(UseAccount on Server);
    GET "/settings/secrets" => Permitted(Browse on Server);
    POST "/settings/secrets" "of all services" => Permitted(ChangeSecrets on Server);
    POST "/settings/secrets" "of a service" => Permitted(ChangeSecrets on Service);
    POST "/settings/secrets" "of an environment" => Permitted(ChangeSecrets on Environment);
    GET "/settings/webhooks" => Permitted(Browse on Server);
    GET "/settings/retention" => Permitted(Prune on Server);
    POST "/settings/retention" => Permitted(Prune on Server);
    GET "/settings/audit" => Permitted(ReadAudit on Server);
    POST "/actions" => Everyone;
    GET "/login" => Everyone;
    POST "/login" => Everyone;
    GET "/login/oidc" => Everyone;
    GET "/login/oidc/callback" => Everyone;
    GET "/setup" => Everyone;
    POST "/setup" => Everyone;
    GET "/approval-link" => Everyone;
    POST "/approval-link" => Everyone;
    POST "/logout" => SignedIn;
    GET "/assets/shipway.css" => Everyone;
    GET "/assets/shipway.js" => Everyone;
    GET "/assets/log_view.js" => Everyone;
    GET "/assets/instance_log.js" => Everyone;
    GET "/assets/overview.js" => Everyone;

    GET "/healthz" => Everyone;
    GET "/readyz" => Everyone;
    GET "/metrics" => Everyone;
    GET "/schema/shipway.json" => Everyone;
    GET "/git/{service}/{*path}" "fetch" => Permitted(Read on Repository);
    GET "/git/{service}/{*path}" "push" => Permitted(Push on Repository);
    POST "/git/{service}/{*path}" "fetch" => Permitted(Read on Repository);
    POST "/git/{service}/{*path}" "push" => Permitted(Push on Repository);

    POST "/internal/push" => OwnHooks;
    GET "/internal/job/source" => OwnJob(FetchInputs);
    GET "/internal/job/artifacts/{digest}" => OwnJob(FetchInputs);
    PUT "/internal/job/journal" => OwnJob(SendRecords);
    PUT "/internal/job/log" => OwnJob(SendRecords);
    PUT "/internal/job/files/{digest}" => OwnJob(SendRecords);
    PUT "/internal/job/summaries/{step}" => OwnJob(SendRecords);
    GET "/internal/job/cancellation" => OwnJob(SendRecords);

    POST "/api/v1/runs/{service}/{number}/cancel" => Permitted(CancelRun on Run);
    DELETE "/api/v1/services/{service}/environments/{environment}" => Permitted(Delete on Environment);
    DELETE "/api/v1/services/{service}" => Permitted(Delete on Service);
    POST "/api/v1/logout" => Permitted(UseAccount on Server);
};
