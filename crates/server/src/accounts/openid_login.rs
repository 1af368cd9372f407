//! Logins with an OpenID Connect provider: authorization code flow with PKCE (S256), state and nonce.
//!
//! # Invariants
//!
//! - What a login was started with is in a cookie of the browser, sealed: nothing is stored for a login that never ends, and a response
//!   that belongs to another browser's login is refused.
//! - A code is used once: the provider refuses it the second time, and the cookie is removed with the response.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shipway_core::{
    identity_token::{
        ClaimProblem, SignInPolicy, SignInRefusal, TokenAudience, TokenRequirements, VerifiedClaims,
    },
    ids::UserName,
    sealed_value::{SealedValue, SealingKeyId},
    user_directory::{ExternalIdentity, ExternalProfile},
};
use shipway_drivers::openid::{
    CodeExchange, OpenIdClient, OpenIdProvider, ProviderProblem, SignatureProblem, SignedToken,
    TokenResponse,
};
use shipway_engine::Clock;
use subtle::ConstantTimeEq as _;

use super::{access_secret::AccessSecret, login_error::LoginError};
use crate::{sealing::SealingKeys, start_options::ServerOptions};

/// A login must end within this time.
const LOGIN_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// What the cookie of a login is sealed for.
const PURPOSE: &str = "login with an OpenID Connect provider";

/// Why a login with a provider fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenIdLoginError {
    #[error(
        "this login was not started in this browser, is older than ten minutes, or has ended already: start again"
    )]
    NotPending,
    #[error("the response is not from the provider {0}: start again")]
    ForeignResponse(String),
    #[error("the provider did not sign you in: {0}")]
    Refused(String),
    #[error(transparent)]
    Provider(#[from] ProviderProblem),
    #[error("the token is refused: {0}")]
    Claims(#[from] ClaimProblem),
    #[error(transparent)]
    NotAllowed(#[from] SignInRefusal),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<SignatureProblem> for OpenIdLoginError {
    fn from(problem: SignatureProblem) -> Self {
        Self::Provider(problem.into())
    }
}

/// What a login was started with.
#[derive(Serialize, Deserialize)]
struct PendingLogin {
    state: String,
    nonce: String,
    /// The secret whose hash the provider has.
    verifier: String,
    next: String,
    expires_at: Timestamp,
}

/// A login that the browser continues at the provider.
pub(crate) struct StartedLogin {
    /// The address at the provider.
    pub(crate) address: String,
    /// The value of the cookie.
    pub(crate) cookie: String,
}

/// The parameters that the provider sends the browser back with.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AuthorizationResponse {
    #[serde(default)]
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// An authenticated person that is allowed to sign in.
pub(crate) struct AuthenticatedPerson {
    pub(crate) identity: ExternalIdentity,
    pub(crate) profile: ExternalProfile,
    pub(crate) preferred_name: UserName,
    /// The address that the login leads to.
    pub(crate) next: String,
}

/// Logins with a provider.
pub(crate) struct OpenIdLogin {
    name: String,
    client: OpenIdClient,
    scope: String,
    policy: SignInPolicy,
    provider: OpenIdProvider,
    redirect_uri: String,
    sealing: Arc<SealingKeys>,
    clock: Arc<dyn Clock>,
}

impl OpenIdLogin {
    /// Logins with the provider of a server, if one is configured.
    pub(crate) fn open(
        options: &ServerOptions,
        server_url: &str,
        sealing: &Arc<SealingKeys>,
        clock: &Arc<dyn Clock>,
    ) -> Option<Arc<Self>> {
        let options = options.openid.clone()?;
        let name = options.name;
        Some(Arc::new(Self {
            name: name.unwrap_or_else(|| options.issuer.host().to_owned()),
            client: options.client,
            scope: options.scopes.join(" "),
            policy: options.policy,
            provider: OpenIdProvider::new(options.issuer),
            redirect_uri: format!("{}/login/oidc/callback", server_url.trim_end_matches('/')),
            sealing: sealing.clone(),
            clock: clock.clone(),
        }))
    }

    /// The provider's name on the login page.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts a login that leads to the address `next` of this server.
    pub(crate) async fn start(&self, next: &str) -> Result<StartedLogin, OpenIdLoginError> {
        let random = || AccessSecret::random("").map(|it| it.as_str().to_owned());
        let pending = PendingLogin {
            state: random().map_err(LoginError::from)?,
            nonce: random().map_err(LoginError::from)?,
            verifier: random().map_err(LoginError::from)?,
            next: next.to_owned(),
            expires_at: (self.clock.now().saturating_add(LOGIN_LIFETIME)).unwrap_or(Timestamp::MAX),
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(pending.verifier.as_bytes()));
        let parameters = [
            ("response_type", "code"),
            ("client_id", &self.client.id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.scope),
            ("state", &pending.state),
            ("nonce", &pending.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let address = self.provider.authorization_address(&parameters).await?;
        Ok(StartedLogin {
            address,
            cookie: self.seal(&pending)?,
        })
    }

    /// Ends a login: exchanges the code, and verifies the token.
    pub(crate) async fn finish(
        &self,
        cookie: Option<&str>,
        response: AuthorizationResponse,
    ) -> Result<AuthenticatedPerson, OpenIdLoginError> {
        let pending = cookie.and_then(|cookie| self.unseal(cookie));
        let pending = pending.ok_or(OpenIdLoginError::NotPending)?;
        let is_own = pending.state.as_bytes().ct_eq(response.state.as_bytes());
        if !bool::from(is_own) || pending.expires_at <= self.clock.now() {
            return Err(OpenIdLoginError::NotPending);
        }
        let issuer = response.iss.as_deref();
        if !self.provider.is_own_response(issuer).await? {
            let own = self.provider.issuer().to_string();
            return Err(OpenIdLoginError::ForeignResponse(own));
        }
        let Some(code) = response.code.filter(|_| response.error.is_none()) else {
            let texts = [response.error, response.error_description];
            let text = texts.into_iter().flatten().collect::<Vec<_>>().join(": ");
            let text = text.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(OpenIdLoginError::Refused(text));
        };
        let exchange = CodeExchange {
            client: &self.client,
            code: &code,
            redirect_uri: &self.redirect_uri,
            verifier: &pending.verifier,
        };
        let tokens = self.provider.exchange_code(exchange).await?;
        let (subject, claims) = self.claims(&tokens, &pending.nonce).await?;
        Ok(AuthenticatedPerson {
            profile: self.policy.admit(&claims)?,
            preferred_name: SignInPolicy::preferred_name(&claims),
            identity: ExternalIdentity {
                issuer: self.provider.issuer().to_string(),
                subject,
            },
            next: pending.next,
        })
    }

    /// The subject and the claims of a login: those of the ID token, and those of the userinfo endpoint where the token is without groups
    /// or address.
    async fn claims(
        &self,
        tokens: &TokenResponse,
        nonce: &str,
    ) -> Result<(String, VerifiedClaims), OpenIdLoginError> {
        let token = SignedToken::parse(&tokens.id_token)?;
        let mut claims = self.provider.verify(&token).await?;
        let requirements = TokenRequirements {
            issuer: self.provider.issuer().as_str(),
            audience: TokenAudience::LoginClient(&self.client.id),
            nonce: Some(nonce),
        };
        let subject = requirements.check(&claims, self.clock.now())?.to_owned();
        let is_complete = claims.has("email") && claims.has(&self.policy.groups_claim);
        if let Some(access_token) = tokens.access_token.as_ref().filter(|_| !is_complete)
            && let Some(more) = self.provider.userinfo(access_token).await?
            && more.text("sub") == Some(&subject)
        {
            claims.add_missing(more);
        }
        Ok((subject, claims))
    }

    fn seal(&self, pending: &PendingLogin) -> Result<String, LoginError> {
        let text = serde_json::to_vec(pending).map_err(std::io::Error::other)?;
        let sealed = self.sealing.seal(PURPOSE, &text)?;
        Ok(format!("{}.{}", sealed.key.0, sealed.data))
    }

    fn unseal(&self, cookie: &str) -> Option<PendingLogin> {
        let (key, data) = cookie.split_once('.')?;
        let sealed = SealedValue {
            key: SealingKeyId(key.parse().ok()?),
            data: data.to_owned(),
        };
        let text = self.sealing.unseal(PURPOSE, &sealed).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
