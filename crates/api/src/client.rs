//! A client of the API: one method for each address that a client of this workspace uses.

use serde::{Serialize, de::DeserializeOwned};
use shipway_core::{
    address::view::AddressClaimsView,
    forge::ForgeView,
    ids::{ReleaseNumber, RolloutId, RunId},
    outbox::{ChannelId, ChannelView, DeadLetterView},
    rollout::RolloutView,
    run::RunView,
    secret::{SecretView, VariableView},
    service::{ReleaseView, ServiceView},
    testing::QuarantinedTest,
};

use crate::{
    AcceptedDeletion, AddressPage, AnalysisReport, ApprovalLinkRequest, CallerView,
    CancelRunRequest, ConnectForgeRequest, CreatedApprovalLink, CreatedToken, DeletionRequest,
    DeployOutcome, DeployPlan, DeployRequest, DispatchRequest, DispatchedRun, EmptyRequest,
    EnvironmentStatus, FailureSummary, GroupRequest, GroupView, ImportSecretsRequest,
    JobGateAction, JobGateRequest, ListedRelease, LoginRequest, LoginResult, NewGroupRequest,
    NewTokenRequest, NewUserRequest, Page, PasswordRequest, PendingApproval, PruneReport,
    PruneRequest, QuarantineRequest, QueuedTestMessage, ReadinessReport, ReleaseAction,
    ReleaseActionRequest, ReleaseListQuery, ReleaseTestRequest, ReleasedTest, RerunRequest,
    ResendRequest, ResumeEnvironmentRequest, ResumedEnvironment, RollbackRequest, RolloutAction,
    RolloutActionRequest, RotatedSecrets, RunListQuery, RunTests, ServiceTests, SetSecretRequest,
    SetVariableRequest, ShellLocation, ShellRequest, TokenView, UserAction, UserProfileRequest,
    UserView,
};

/// Entries of a page at most; the server gives no more.
const PAGE_LIMIT_MAX: u32 = 200;

/// The address of a server that was started without `--listen` and `--public-url`.
pub const DEFAULT_SERVER_URL: &str = "http://127.0.0.1:7878";

/// A client. Implementors bring the transport, three methods; the API follows from them. Services are named as users name them: the
/// server checks the name.
pub trait ApiClient {
    /// Why a request failed, or was refused.
    type Error;

    /// GETs a JSON document.
    ///
    /// # Errors
    /// When there is no answer, or it is a problem.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Self::Error>;

    /// POSTs a JSON document, and reads the JSON answer.
    ///
    /// # Errors
    /// When there is no answer, or it is a problem.
    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Self::Error>;

    /// PUTs a JSON document, and reads the JSON answer.
    ///
    /// # Errors
    /// When there is no answer, or it is a problem.
    fn replace<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Self::Error>;

    /// PUTs a JSON document in place of the version that the caller has read, and reads the JSON answer.
    ///
    /// # Errors
    /// When there is no answer, or it is a problem.
    fn replace_version<T: DeserializeOwned>(
        &self,
        path: &str,
        version: u64,
        body: &impl Serialize,
    ) -> Result<T, Self::Error>;

    /// DELETEs with a JSON document, and reads the JSON answer.
    ///
    /// # Errors
    /// When there is no answer, or it is a problem.
    fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Self::Error>;

    /// The first entries of a list, at most `limit`: as many pages as that takes. `path` has a query.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn list_entries<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: u32,
    ) -> Result<Vec<T>, Self::Error> {
        let (mut entries, mut cursor) = (Vec::new(), String::new());
        loop {
            let missing = limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            let page_limit = missing.clamp(1, PAGE_LIMIT_MAX);
            let page: Page<T> = self.get(&format!("{path}&limit={page_limit}{cursor}"))?;
            entries.extend(page.items);
            entries.truncate(limit as usize);
            match page.next {
                Some(next) if entries.len() < limit as usize => cursor = format!("&cursor={next}"),
                Some(_) | None => return Ok(entries),
            }
        }
    }

    /// Secrets without their values, of a service or those that all services see.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn secrets(&self, service: Option<&str>) -> Result<Page<SecretView>, Self::Error> {
        self.get(&value_path("secrets", "", service, None))
    }

    fn set_secret(
        &self,
        name: &str,
        service: Option<&str>,
        environment: Option<&str>,
        request: &SetSecretRequest,
    ) -> Result<SecretView, Self::Error> {
        let path = value_path("secrets", &format!("/{name}"), service, environment);
        self.replace(&path, request)
    }

    fn import_secrets(
        &self,
        service: Option<&str>,
        environment: Option<&str>,
        request: &ImportSecretsRequest,
    ) -> Result<Page<SecretView>, Self::Error> {
        self.post(
            &value_path("secrets", "/import", service, environment),
            request,
        )
    }

    fn remove_secret(
        &self,
        name: &str,
        service: Option<&str>,
        environment: Option<&str>,
    ) -> Result<Page<SecretView>, Self::Error> {
        let path = value_path("secrets", &format!("/{name}"), service, environment);
        self.delete(&path, &serde_json::json!({}))
    }

    /// The connection of a repository to a forge.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn forge(&self, repository: &str) -> Result<ForgeView, Self::Error> {
        self.get(&format!("/api/v1/forges/{repository}"))
    }

    fn connect_forge(
        &self,
        repository: &str,
        request: &ConnectForgeRequest,
    ) -> Result<ForgeView, Self::Error> {
        self.replace(&format!("/api/v1/forges/{repository}"), request)
    }

    fn disconnect_forge(&self, repository: &str) -> Result<ForgeView, Self::Error> {
        let path = format!("/api/v1/forges/{repository}");
        self.delete(&path, &serde_json::json!({}))
    }

    /// Destinations of notifications that had a message.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn notification_channels(&self) -> Result<Vec<ChannelView>, Self::Error> {
        self.list_entries("/api/v1/notifications?", u32::MAX)
    }

    /// Dead letters of a destination, the newest first.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn dead_letters(&self, channel: &ChannelId) -> Result<Vec<DeadLetterView>, Self::Error> {
        let path = format!("/api/v1/notifications/{channel}/dead-letters?");
        self.list_entries(&path, u32::MAX)
    }

    fn resend_dead_letters(
        &self,
        channel: &ChannelId,
        request: &ResendRequest,
    ) -> Result<ChannelView, Self::Error> {
        self.post(&format!("/api/v1/notifications/{channel}/resend"), request)
    }

    fn remove_dead_letter(
        &self,
        channel: &ChannelId,
        number: u64,
    ) -> Result<ChannelView, Self::Error> {
        let path = format!("/api/v1/notifications/{channel}/dead-letters/{number}");
        self.delete(&path, &EmptyRequest {})
    }

    fn send_test_message(&self, channel: &ChannelId) -> Result<QueuedTestMessage, Self::Error> {
        let path = format!("/api/v1/notifications/{channel}/test");
        self.post(&path, &EmptyRequest {})
    }

    fn rotate_secret_key(&self) -> Result<RotatedSecrets, Self::Error> {
        self.post("/api/v1/secrets/rotate", &serde_json::json!({}))
    }

    /// Variables of a service, or those that all services see.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn variables(&self, service: Option<&str>) -> Result<Page<VariableView>, Self::Error> {
        self.get(&value_path("variables", "", service, None))
    }

    fn set_variable(
        &self,
        name: &str,
        service: Option<&str>,
        environment: Option<&str>,
        request: &SetVariableRequest,
    ) -> Result<Page<VariableView>, Self::Error> {
        let path = value_path("variables", &format!("/{name}"), service, environment);
        self.replace(&path, request)
    }

    fn remove_variable(
        &self,
        name: &str,
        service: Option<&str>,
        environment: Option<&str>,
    ) -> Result<Page<VariableView>, Self::Error> {
        let path = value_path("variables", &format!("/{name}"), service, environment);
        self.delete(&path, &serde_json::json!({}))
    }

    fn readiness(&self) -> Result<ReadinessReport, Self::Error> {
        self.get("/readyz")
    }

    fn services(&self) -> Result<Vec<ServiceView>, Self::Error> {
        self.list_entries("/api/v1/services?", u32::MAX)
    }

    fn service(&self, service: &str) -> Result<ServiceView, Self::Error> {
        self.get(&service_path(service))
    }

    /// All environments, ordered by service, and within each in the order of promotion.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn environments(&self) -> Result<Vec<EnvironmentStatus>, Self::Error> {
        let mut all: Vec<EnvironmentStatus> =
            self.list_entries("/api/v1/environments?", u32::MAX)?;
        all.sort_by(|a, b| (&a.service, a.position).cmp(&(&b.service, b.position)));
        Ok(all)
    }

    /// The environments of a service in the order of promotion; none if there is no such service.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn service_environments(&self, service: &str) -> Result<Vec<EnvironmentStatus>, Self::Error> {
        let path = format!("/api/v1/environments?service={service}");
        let mut all: Vec<EnvironmentStatus> = self.list_entries(&path, u32::MAX)?;
        all.sort_by_key(|environment| environment.position);
        Ok(all)
    }

    fn resume_environment(
        &self,
        service: &str,
        environment: &str,
        request: &ResumeEnvironmentRequest,
    ) -> Result<ResumedEnvironment, Self::Error> {
        self.post(
            &format!(
                "{}/environments/{environment}/resume",
                service_path(service)
            ),
            request,
        )
    }

    /// Deletes the service with all its environments.
    fn delete_service(
        &self,
        service: &str,
        request: &DeletionRequest,
    ) -> Result<AcceptedDeletion, Self::Error> {
        self.delete(&service_path(service), request)
    }

    fn delete_environment(
        &self,
        service: &str,
        environment: &str,
        request: &DeletionRequest,
    ) -> Result<AcceptedDeletion, Self::Error> {
        let service = service_path(service);
        self.delete(&format!("{service}/environments/{environment}"), request)
    }

    /// The files that the retention rule no longer covers.
    fn prunable_files(&self) -> Result<PruneReport, Self::Error> {
        self.get("/api/v1/prune")
    }

    /// Removes them.
    fn prune(&self) -> Result<PruneReport, Self::Error> {
        self.post("/api/v1/prune", &PruneRequest {})
    }

    fn address_claims(&self) -> Result<AddressClaimsView, Self::Error> {
        let page: AddressPage = self.get("/api/v1/addresses?limit=1")?;
        Ok(AddressClaimsView {
            items: self.list_entries("/api/v1/addresses?", u32::MAX)?,
            reserved_ports: page.reserved_ports,
        })
    }

    fn deploy(&self, service: &str, request: &DeployRequest) -> Result<DeployOutcome, Self::Error> {
        self.post(&format!("{}/deploys", service_path(service)), request)
    }

    fn roll_back(
        &self,
        service: &str,
        request: &RollbackRequest,
    ) -> Result<DeployOutcome, Self::Error> {
        self.post(&format!("{}/rollbacks", service_path(service)), request)
    }

    fn rollouts(&self, service: &str, limit: u32) -> Result<Vec<RolloutView>, Self::Error> {
        self.list_entries(&format!("/api/v1/rollouts?service={service}"), limit)
    }

    fn rollout(&self, id: &RolloutId) -> Result<RolloutView, Self::Error> {
        self.get(&rollout_path(id))
    }

    fn act_on_rollout(
        &self,
        id: &RolloutId,
        action: RolloutAction,
        request: &RolloutActionRequest,
    ) -> Result<RolloutView, Self::Error> {
        self.post(
            &format!("{}/{}", rollout_path(id), action.as_str()),
            request,
        )
    }

    fn retry_rollout(
        &self,
        id: &RolloutId,
        request: &RolloutActionRequest,
    ) -> Result<DeployOutcome, Self::Error> {
        self.post(&format!("{}/retry", rollout_path(id)), request)
    }

    fn analysis(&self, id: &RolloutId) -> Result<AnalysisReport, Self::Error> {
        self.get(&format!("{}/analysis", rollout_path(id)))
    }

    fn approvals(&self) -> Result<Vec<PendingApproval>, Self::Error> {
        self.list_entries("/api/v1/approvals?", u32::MAX)
    }

    fn dispatch(
        &self,
        service: &str,
        request: &DispatchRequest,
    ) -> Result<DispatchedRun, Self::Error> {
        self.post(&format!("{}/runs", service_path(service)), request)
    }

    fn runs(&self, service: &str, limit: u32) -> Result<Vec<RunView>, Self::Error> {
        self.list_entries(&format!("/api/v1/runs?service={service}"), limit)
    }

    /// The newest runs of a query; its `limit` and `cursor` don't count.
    fn runs_of_query(&self, query: &RunListQuery, limit: u32) -> Result<Vec<RunView>, Self::Error> {
        self.list_entries(&format!("/api/v1/runs?{}", encode_query(query)), limit)
    }

    /// The newest releases of a query; its `limit` and `cursor` don't count.
    fn releases_of_query(
        &self,
        query: &ReleaseListQuery,
        limit: u32,
    ) -> Result<Vec<ListedRelease>, Self::Error> {
        self.list_entries(&format!("/api/v1/releases?{}", encode_query(query)), limit)
    }

    fn run(&self, id: &RunId) -> Result<RunView, Self::Error> {
        self.get(&run_path(id))
    }

    fn failure_summary(&self, id: &RunId) -> Result<FailureSummary, Self::Error> {
        self.get(&format!("{}/why", run_path(id)))
    }

    fn cancel_run(&self, id: &RunId, request: &CancelRunRequest) -> Result<RunView, Self::Error> {
        self.post(&format!("{}/cancel", run_path(id)), request)
    }

    fn rerun(&self, id: &RunId, request: &RerunRequest) -> Result<RunView, Self::Error> {
        self.post(&format!("{}/rerun", run_path(id)), request)
    }

    fn create_approval_link(
        &self,
        id: &RolloutId,
        request: &ApprovalLinkRequest,
    ) -> Result<CreatedApprovalLink, Self::Error> {
        let (service, number) = (&id.service, id.number.0);
        self.post(
            &format!("/api/v1/rollouts/{service}/{number}/links"),
            request,
        )
    }

    fn act_on_release(
        &self,
        service: &str,
        number: ReleaseNumber,
        action: ReleaseAction,
        request: &ReleaseActionRequest,
    ) -> Result<ReleaseView, Self::Error> {
        let number = number.0;
        let path = format!(
            "/api/v1/services/{service}/releases/{number}/{}",
            action.as_str()
        );
        self.post(&path, request)
    }

    fn act_on_job_gate(
        &self,
        id: &RunId,
        job: &str,
        action: JobGateAction,
        request: &JobGateRequest,
    ) -> Result<RunView, Self::Error> {
        self.post(
            &format!("{}/jobs/{job}/{}", run_path(id), action.as_str()),
            request,
        )
    }

    fn prepare_shell(
        &self,
        id: &RunId,
        job: &str,
        request: &ShellRequest,
    ) -> Result<ShellLocation, Self::Error> {
        self.post(&format!("{}/jobs/{job}/shell", run_path(id)), request)
    }

    fn run_tests(&self, id: &RunId) -> Result<RunTests, Self::Error> {
        self.get(&format!("{}/tests", run_path(id)))
    }

    fn service_tests(&self, service: &str) -> Result<ServiceTests, Self::Error> {
        self.get(&format!("{}/tests", service_path(service)))
    }

    fn quarantine_test(
        &self,
        service: &str,
        request: &QuarantineRequest,
    ) -> Result<QuarantinedTest, Self::Error> {
        self.post(
            &format!("{}/tests/quarantine", service_path(service)),
            request,
        )
    }

    fn release_test(
        &self,
        service: &str,
        request: &ReleaseTestRequest,
    ) -> Result<ReleasedTest, Self::Error> {
        self.post(&format!("{}/tests/release", service_path(service)), request)
    }

    /// What a deploy would do; of the newest release by default.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    fn plan(
        &self,
        service: &str,
        environment: &str,
        release: Option<u32>,
    ) -> Result<DeployPlan, Self::Error> {
        let release = release.map_or_else(String::new, |number| format!("&release={number}"));
        self.get(&format!(
            "{}/plan?to={environment}{release}",
            service_path(service)
        ))
    }

    fn caller(&self) -> Result<CallerView, Self::Error> {
        self.get("/api/v1/me")
    }

    fn log_in(&self, request: &LoginRequest) -> Result<LoginResult, Self::Error> {
        self.post("/api/v1/login", request)
    }

    fn log_out(&self) -> Result<(), Self::Error> {
        self.post("/api/v1/logout", &serde_json::json!({}))
    }

    fn users(&self) -> Result<Page<UserView>, Self::Error> {
        self.get("/api/v1/users")
    }

    fn user(&self, user: &str) -> Result<UserView, Self::Error> {
        self.get(&format!("/api/v1/users/{user}"))
    }

    fn add_user(&self, request: &NewUserRequest) -> Result<UserView, Self::Error> {
        self.post("/api/v1/users", request)
    }

    fn change_user(
        &self,
        user: &str,
        version: u64,
        request: &UserProfileRequest,
    ) -> Result<UserView, Self::Error> {
        self.replace_version(&format!("/api/v1/users/{user}"), version, request)
    }

    fn act_on_user(&self, user: &str, action: UserAction) -> Result<UserView, Self::Error> {
        let path = format!("/api/v1/users/{user}/{}", action.as_str());
        self.post(&path, &serde_json::json!({}))
    }

    fn set_password(&self, user: &str, request: &PasswordRequest) -> Result<(), Self::Error> {
        self.post(&format!("/api/v1/users/{user}/password"), request)
    }

    fn remove_user(&self, user: &str) -> Result<(), Self::Error> {
        self.delete(&format!("/api/v1/users/{user}"), &serde_json::json!({}))
    }

    fn groups(&self) -> Result<Page<GroupView>, Self::Error> {
        self.get("/api/v1/groups")
    }

    fn group(&self, group: &str) -> Result<GroupView, Self::Error> {
        self.get(&format!("/api/v1/groups/{group}"))
    }

    fn add_group(&self, request: &NewGroupRequest) -> Result<GroupView, Self::Error> {
        self.post("/api/v1/groups", request)
    }

    fn change_group(
        &self,
        group: &str,
        version: u64,
        request: &GroupRequest,
    ) -> Result<GroupView, Self::Error> {
        self.replace_version(&format!("/api/v1/groups/{group}"), version, request)
    }

    fn remove_group(&self, group: &str) -> Result<(), Self::Error> {
        self.delete(&format!("/api/v1/groups/{group}"), &serde_json::json!({}))
    }

    fn tokens(&self) -> Result<Page<TokenView>, Self::Error> {
        self.get("/api/v1/tokens")
    }

    fn create_token(&self, request: &NewTokenRequest) -> Result<CreatedToken, Self::Error> {
        self.post("/api/v1/tokens", request)
    }

    fn revoke_token(&self, token: &str) -> Result<(), Self::Error> {
        self.delete(&format!("/api/v1/tokens/{token}"), &serde_json::json!({}))
    }

    /// The address of a job's log.
    fn job_log_path(&self, id: &RunId, job: &str) -> String {
        format!("{}/jobs/{job}/log", run_path(id))
    }
}

fn run_path(id: &RunId) -> String {
    format!("/api/v1/runs/{}/{}", id.service, id.number.0)
}

fn rollout_path(id: &RolloutId) -> String {
    format!("/api/v1/rollouts/{}/{}", id.service, id.number.0)
}

fn service_path(service: &str) -> String {
    format!("/api/v1/services/{service}")
}

/// The address of secrets or variables, with the place that they are set in.
fn value_path(kind: &str, rest: &str, service: Option<&str>, environment: Option<&str>) -> String {
    let service = service.map(|service| format!("service={service}"));
    let environment = environment.map(|environment| format!("environment={environment}"));
    let query: Vec<String> = service.into_iter().chain(environment).collect();
    format!("/api/v1/{kind}{rest}?{}", query.join("&"))
}

/// The parameters of an address.
fn encode_query(query: &impl Serialize) -> String {
    let document = serde_json::to_value(query).unwrap_or_default();
    let fields = document.as_object().into_iter().flatten();
    let parameters = fields.map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        });
        format!("{name}={}", bytes.collect::<String>())
    });
    parameters.collect::<Vec<_>>().join("&")
}
