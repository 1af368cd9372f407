//! The principal: the sender of a request.

use serde::{Deserialize, Serialize};

use super::{
    job_identity::JobIdentity,
    role::{PrincipalRole, RoleBinding},
};
use crate::{
    aggregate::Actor,
    ids::{AccessTokenId, UserName},
    principal_id::PrincipalId,
};

/// The name of a person who gives none.
const UNNAMED: &str = "someone";

/// The kind of a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person at this machine, of a server without a token. The name is what they say.
    Person,
    /// The server's token. The name is what its holder says.
    Token,
    /// A job, by its token.
    Job(JobIdentity),
    /// A process of a job that presents no token; described as `build of shop/r7`.
    JobProcess(String),
    /// A process of an instance; described as `shop.production.3.1`.
    InstanceProcess(String),
    /// Shipway itself.
    System,
}

/// The sender of a request, after authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub id: PrincipalId,
    pub kind: PrincipalKind,
    /// The name that the client gave, if it did.
    pub name: Option<String>,
    /// The groups it is a member of, for approvals.
    pub groups: Vec<String>,
    pub roles: Vec<RoleBinding>,
    /// A second set of roles that must also allow a request: a token has its owner's roles within its own.
    pub limit: Option<Vec<RoleBinding>>,
    /// The access token that it presented.
    pub token: Option<AccessTokenId>,
}

impl Principal {
    fn new(id: String, kind: PrincipalKind, name: Option<String>) -> Self {
        Self {
            id: PrincipalId::from_trusted(id),
            kind,
            name,
            groups: Vec::new(),
            roles: Vec::new(),
            limit: None,
            token: None,
        }
    }

    fn with_all_permissions(mut self) -> Self {
        self.roles = vec![RoleBinding::everywhere(PrincipalRole::Admin)];
        self
    }

    /// A person at this machine.
    #[must_use]
    pub fn person(name: &str) -> Self {
        let (id, name) = (format!("person:{name}"), Some(name.to_owned()));
        Self::new(id, PrincipalKind::Person, name).with_all_permissions()
    }

    /// A person at this machine who gives no name.
    #[must_use]
    pub fn unnamed_person() -> Self {
        let id = "person".to_owned();
        Self::new(id, PrincipalKind::Person, None).with_all_permissions()
    }

    /// A user of this server, with its groups and all of its roles.
    #[must_use]
    pub fn user(name: &UserName, groups: Vec<String>, roles: Vec<RoleBinding>) -> Self {
        let id = format!("user:{name}");
        Self {
            groups,
            roles,
            ..Self::new(id, PrincipalKind::Person, Some(name.to_string()))
        }
    }

    /// The same with an access token, which limits it.
    #[must_use]
    pub fn with_token(self, token: AccessTokenId, limit: Vec<RoleBinding>) -> Self {
        Self {
            kind: PrincipalKind::Token,
            limit: Some(limit),
            token: Some(token),
            ..self
        }
    }

    /// The holder of the server's token, with the name they give.
    #[must_use]
    pub fn server_token(name: Option<String>) -> Self {
        let id = "token:server".to_owned();
        Self::new(id, PrincipalKind::Token, name).with_all_permissions()
    }

    /// A job that presented its token.
    #[must_use]
    pub fn job(job: JobIdentity) -> Self {
        let id = format!("job:{}/{}/{}", job.run, job.key, job.attempt);
        Self::new(id, PrincipalKind::Job(job), None)
    }

    /// A process of a job, without its token.
    #[must_use]
    pub fn job_process(job: &str) -> Self {
        let kind = PrincipalKind::JobProcess(job.to_owned());
        Self::new(format!("job-process:{job}"), kind, None)
    }

    /// A process of an instance.
    #[must_use]
    pub fn instance_process(instance: &str) -> Self {
        let kind = PrincipalKind::InstanceProcess(instance.to_owned());
        Self::new(format!("instance:{instance}"), kind, None)
    }

    /// Shipway itself.
    #[must_use]
    pub fn system() -> Self {
        let id = PrincipalId::system().into();
        Self::new(id, PrincipalKind::System, None).with_all_permissions()
    }

    /// How messages call it.
    #[must_use]
    pub fn display_name(&self) -> String {
        match &self.kind {
            PrincipalKind::Person | PrincipalKind::Token => {
                self.name.clone().unwrap_or_else(|| UNNAMED.to_owned())
            }
            PrincipalKind::Job(job) => job.to_string(),
            PrincipalKind::JobProcess(name) | PrincipalKind::InstanceProcess(name) => name.clone(),
            PrincipalKind::System => "shipway".to_owned(),
        }
    }

    /// The actor of the events that its requests cause.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let principal = self.id.clone();
        match &self.kind {
            PrincipalKind::Person | PrincipalKind::Token => Actor::Person {
                principal,
                name: self.display_name(),
                token: self.token.clone(),
            },
            PrincipalKind::Job(_)
            | PrincipalKind::JobProcess(_)
            | PrincipalKind::InstanceProcess(_) => Actor::Workload { principal },
            PrincipalKind::System => Actor::Shipway("its own request".to_owned()),
        }
    }

    /// Its pushes: the server's hook reports them, and says whose they are.
    #[must_use]
    pub fn pusher(&self) -> PushPrincipal {
        PushPrincipal {
            principal: self.id.clone(),
            name: self.name.clone(),
        }
    }
}

/// Whose push it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushPrincipal {
    pub principal: PrincipalId,
    /// The name that git gave, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl PushPrincipal {
    /// The actor of the events that the push causes; `unnamed` is its name when git gave none.
    #[must_use]
    pub fn actor(&self, unnamed: &str) -> Actor {
        Actor::Push {
            principal: self.principal.clone(),
            name: self.name.clone().unwrap_or_else(|| unnamed.to_owned()),
        }
    }
}
