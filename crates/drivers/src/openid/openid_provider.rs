//! A provider with its cached documents.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Map, Value};
use shipway_core::identity_token::VerifiedClaims;
use ureq::http::Request;

use super::{
    cached_document::CachedDocument,
    fetch_budget::FetchBudget,
    issuer_url::IssuerUrl,
    provider_documents::{ErrorDocument, ProviderMetadata, PublishedKeys, TokenDocument},
    provider_http::{ProviderHttp, ProviderHttpError},
    signed_token::{SignatureProblem, SignedToken},
    token_request::{CodeExchange, TokenResponse, encode_form},
    verification_key::KeySet,
};

/// Why a provider's answer can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderProblem {
    /// It can't be reached, or its documents are not as they must be.
    #[error("the provider {0} can't be used now: {1}")]
    Unavailable(IssuerUrl, String),
    /// Too many requests were sent in the last minutes.
    #[error("the provider {0} is not asked again before ten seconds have passed: try again then")]
    Budget(IssuerUrl),
    /// The code was used, has expired, or is not for this client.
    #[error("the provider refused the login: {0}; start again at /login")]
    CodeRefused(String),
    /// The token is not one of the provider's.
    #[error("the token is refused: {0}")]
    Token(#[from] SignatureProblem),
}

#[derive(Debug)]
struct ProviderCache {
    metadata: CachedDocument<ProviderMetadata>,
    keys: CachedDocument<KeySet>,
    budget: FetchBudget,
}

/// An OpenID Connect provider.
pub struct OpenIdProvider {
    issuer: IssuerUrl,
    http: ProviderHttp,
    cache: Mutex<ProviderCache>,
}

impl fmt::Debug for OpenIdProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenIdProvider({})", self.issuer)
    }
}

impl OpenIdProvider {
    /// The provider with this issuer. Nothing is fetched yet.
    #[must_use]
    pub fn new(issuer: IssuerUrl) -> Self {
        Self {
            issuer,
            http: ProviderHttp::new(),
            cache: Mutex::new(ProviderCache {
                metadata: CachedDocument::default(),
                keys: CachedDocument::default(),
                budget: FetchBudget::new(Instant::now()),
            }),
        }
    }

    /// The issuer of its tokens.
    #[must_use]
    pub const fn issuer(&self) -> &IssuerUrl {
        &self.issuer
    }

    /// The address of a login with these parameters.
    ///
    /// # Errors
    /// The provider can't be reached, or has no logins.
    pub async fn authorization_address(
        &self,
        parameters: &[(&str, &str)],
    ) -> Result<String, ProviderProblem> {
        let metadata = self.metadata().await?;
        let endpoint = metadata.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| self.missing("authorization_endpoint"))?;
        let separator = match endpoint.contains('?') {
            true => '&',
            false => '?',
        };
        Ok(format!("{endpoint}{separator}{}", encode_form(parameters)))
    }

    /// Whether a response of the authorization endpoint may be from this provider: `issuer` is the one that the response names
    /// (RFC 9207).
    ///
    /// # Errors
    /// The provider can't be reached.
    pub async fn is_own_response(&self, issuer: Option<&str>) -> Result<bool, ProviderProblem> {
        let metadata = self.metadata().await?;
        Ok(match issuer {
            Some(issuer) => issuer == self.issuer.as_str(),
            None => !metadata.authorization_response_iss_parameter_supported,
        })
    }

    /// Exchanges the code of a login for tokens.
    ///
    /// # Errors
    /// The provider can't be reached, or refuses the code.
    pub async fn exchange_code(
        &self,
        exchange: CodeExchange<'_>,
    ) -> Result<TokenResponse, ProviderProblem> {
        let metadata = self.metadata().await?;
        let endpoint = metadata.token_endpoint.as_deref();
        let address = endpoint.ok_or_else(|| self.missing("token_endpoint"))?;
        let request = exchange.to_request(&metadata, address);
        let sent = self.http.send(address, request).await;
        let (status, body) = sent.map_err(|error| self.unavailable(&error))?;
        if status.is_client_error() {
            let error: ErrorDocument = serde_json::from_slice(&body).unwrap_or_default();
            let text = format!("{} {}", error.error, error.error_description);
            let text = text.trim().chars().take(200).collect();
            return Err(ProviderProblem::CodeRefused(text));
        }
        let tokens: Option<TokenDocument> = serde_json::from_slice(&body).ok();
        let tokens = tokens.filter(|_| status.is_success());
        let tokens = tokens.and_then(|tokens| Some((tokens.id_token?, tokens.access_token)));
        let (id_token, access_token) = tokens.ok_or_else(|| {
            let why = format!("{address} responded with {status} and no ID token");
            ProviderProblem::Unavailable(self.issuer.clone(), why)
        })?;
        Ok(TokenResponse {
            id_token,
            access_token,
        })
    }

    /// What the provider says about the subject of an access token; none when it has no such endpoint.
    ///
    /// # Errors
    /// The provider can't be reached.
    pub async fn userinfo(
        &self,
        access_token: &str,
    ) -> Result<Option<VerifiedClaims>, ProviderProblem> {
        let metadata = self.metadata().await?;
        let Some(address) = metadata.userinfo_endpoint.as_deref() else {
            return Ok(None);
        };
        let request = Request::get(address)
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {access_token}"))
            .body(String::new());
        let fetched = self
            .http
            .fetch_success::<Map<String, Value>>(address, request);
        let claims = fetched.await.map_err(|error| self.unavailable(&error))?;
        Ok(Some(VerifiedClaims::from_verified(claims)))
    }

    /// The claims of a token that this provider has signed.
    ///
    /// # Errors
    /// It was not signed by this provider, or the provider can't be reached.
    pub async fn verify(&self, token: &SignedToken<'_>) -> Result<VerifiedClaims, ProviderProblem> {
        let known = self.cache().keys.fresh(Instant::now());
        if let Some(keys) = known {
            match token.verify(&keys) {
                Err(SignatureProblem::UnknownKey(_)) => {}
                verified => return Ok(verified?),
            }
        }
        Ok(token.verify(&*self.fetch_keys().await?)?)
    }

    /// Fetches the keys. Where that is impossible, those of the last day are returned.
    async fn fetch_keys(&self) -> Result<Arc<KeySet>, ProviderProblem> {
        let fetched = async {
            let metadata = self.metadata().await?;
            let keys: PublishedKeys = self.fetch_in_budget(&metadata.jwks_uri).await?;
            Ok(Arc::new(KeySet::from_published(keys.keys)))
        };
        let (fetched, now) = (fetched.await, Instant::now());
        let mut cache = self.cache();
        match fetched {
            Ok(keys) => {
                cache.keys.store(keys.clone(), now);
                Ok(keys)
            }
            Err(problem) => cache.keys.usable(now).ok_or(problem),
        }
    }

    /// The discovery document, fetched again after an hour. Where that is impossible, the one of the last day is returned.
    async fn metadata(&self) -> Result<Arc<ProviderMetadata>, ProviderProblem> {
        if let Some(metadata) = self.cache().metadata.fresh(Instant::now()) {
            return Ok(metadata);
        }
        let address = self.issuer.discovery_address();
        let fetched: Result<ProviderMetadata, _> = self.fetch_in_budget(&address).await;
        let fetched = fetched.and_then(|metadata| {
            if metadata.issuer != self.issuer.as_str() {
                let why = format!(
                    "{address} describes the issuer {:?}; the configured issuer must be written exactly so",
                    metadata.issuer
                );
                return Err(ProviderProblem::Unavailable(self.issuer.clone(), why));
            }
            Ok(Arc::new(metadata))
        });
        let now = Instant::now();
        let mut cache = self.cache();
        match fetched {
            Ok(metadata) => {
                cache.metadata.store(metadata.clone(), now);
                Ok(metadata)
            }
            Err(problem) => cache.metadata.usable(now).ok_or(problem),
        }
    }

    async fn fetch_in_budget<T: serde::de::DeserializeOwned>(
        &self,
        address: &str,
    ) -> Result<T, ProviderProblem> {
        if !self.cache().budget.take(Instant::now()) {
            return Err(ProviderProblem::Budget(self.issuer.clone()));
        }
        let fetched = self.http.fetch(address).await;
        fetched.map_err(|error| self.unavailable(&error))
    }

    fn cache(&self) -> MutexGuard<'_, ProviderCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, error: &ProviderHttpError) -> ProviderProblem {
        ProviderProblem::Unavailable(self.issuer.clone(), error.to_string())
    }

    fn missing(&self, field: &str) -> ProviderProblem {
        let why = format!("its discovery document has no `{field}`");
        ProviderProblem::Unavailable(self.issuer.clone(), why)
    }
}
