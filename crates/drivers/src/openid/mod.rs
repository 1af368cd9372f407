//! OpenID Connect providers: their discovery documents, their keys, the signatures of their tokens, and logins with them.
//!
//! # Invariants
//!
//! - Keys are fetched from configured issuers only, never from an address in a token.
//! - A signature is verified with an asymmetric algorithm of a fixed list and a key of the type that the algorithm needs: a token can't
//!   choose `none`, nor have a public key taken for a shared secret.
//! - A key that isn't known makes the keys be fetched again, within [`fetch_budget`]: strangers can't make this server send requests
//!   to a provider without limit.
//!
//! # Failure modes
//!
//! While a provider can't be reached, documents of the last day are still used.

mod cached_document;
mod fetch_budget;
mod issuer_url;
mod openid_provider;
mod provider_documents;
mod provider_http;
mod signed_token;
#[cfg(test)]
mod tests;
mod token_request;
mod verification_key;

pub use issuer_url::{IssuerUrl, ParseIssuerUrlError};
pub use openid_provider::{OpenIdProvider, ProviderProblem};
pub use signed_token::{SignatureProblem, SignedToken};
pub use token_request::{CodeExchange, OpenIdClient, TokenResponse};
