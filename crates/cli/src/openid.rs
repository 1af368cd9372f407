//! The OpenID Connect provider that people may sign in to a server with.

use std::{fs, path::PathBuf};

use shipway_core::identity_token::{ProviderGroupMapping, SignInPolicy, SignInRule};
use shipway_drivers::openid::{IssuerUrl, OpenIdClient};
use shipway_server::OpenIdOptions;

use crate::exit::Failure;

/// The variable with the secret of the client.
const SECRET_VARIABLE: &str = "SHIPWAY_OIDC_CLIENT_SECRET";

/// Options of the server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Login with OpenID Connect")]
pub struct OpenIdLoginOptions {
    /// Issuer of the OpenID Connect provider that people may sign in with; its redirect address is URL/login/oidc/callback
    #[arg(long, env = "SHIPWAY_OIDC_ISSUER", value_name = "URL", requires_all = ["oidc_client_id", "oidc_allow"])]
    oidc_issuer: Option<IssuerUrl>,

    /// Id of this server at the provider
    #[arg(
        long,
        env = "SHIPWAY_OIDC_CLIENT_ID",
        value_name = "ID",
        requires = "oidc_issuer"
    )]
    oidc_client_id: Option<String>,

    /// File with the client secret in its first line. Default: the variable SHIPWAY_OIDC_CLIENT_SECRET; a public client has none
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    oidc_client_secret_file: Option<PathBuf>,

    /// Name of the provider on the login page; default: the host of the issuer
    #[arg(long, value_name = "NAME", requires = "oidc_issuer")]
    oidc_name: Option<String>,

    /// People allowed to sign in: @GROUP of the provider, a verified e-mail address, *@DOMAIN, or * for all users of the provider; repeatable. A new user has no role until a group or an administrator grants one
    #[arg(long, value_name = "WHO", requires = "oidc_issuer")]
    oidc_allow: Vec<SignInRule>,

    /// Claim with the groups of a user
    #[arg(
        long,
        value_name = "CLAIM",
        default_value = "groups",
        requires = "oidc_issuer"
    )]
    oidc_groups_claim: String,

    /// Members of the provider's group are members of this server's group, from one login to the next; repeatable
    #[arg(long, value_name = "PROVIDER_GROUP=GROUP", requires = "oidc_issuer")]
    oidc_group: Vec<ProviderGroupMapping>,

    /// Scopes that are requested
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_values = ["openid", "profile", "email"], requires = "oidc_issuer")]
    oidc_scope: Vec<String>,
}

impl OpenIdLoginOptions {
    /// The provider, if one is configured.
    pub fn provider(self) -> Result<Option<OpenIdOptions>, Failure> {
        let (Some(issuer), Some(id)) = (self.oidc_issuer, self.oidc_client_id) else {
            return Ok(None);
        };
        let secret = match &self.oidc_client_secret_file {
            Some(file) => Some(read_secret(file)?),
            None => std::env::var(SECRET_VARIABLE)
                .ok()
                .filter(|it| !it.is_empty()),
        };
        let mut scopes = self.oidc_scope;
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        Ok(Some(OpenIdOptions {
            issuer,
            client: OpenIdClient { id, secret },
            secret_file: self.oidc_client_secret_file,
            name: self.oidc_name,
            scopes,
            policy: SignInPolicy {
                rules: self.oidc_allow,
                groups_claim: self.oidc_groups_claim,
                mappings: self.oidc_group,
            },
        }))
    }
}

fn read_secret(file: &PathBuf) -> Result<String, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        let file = file.display();
        Failure::usage(format!(
            "the client secret can't be read from {file}: {error}"
        ))
    })?;
    let secret = text.lines().next().unwrap_or_default().trim();
    match secret.is_empty() {
        true => Err(Failure::usage(format!(
            "the first line of {} must be the client secret, but is empty",
            file.display()
        ))),
        false => Ok(secret.to_owned()),
    }
}
