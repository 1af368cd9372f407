//! Identity tokens of OpenID Connect providers, with a verified signature: their claims, and the requirements for them.
//!
//! Tokens of people (a login) and of machines (a job of a forge) are checked by the same rules. The signature is verified by
//! `shipway_drivers::openid`, which is the only source of [`VerifiedClaims`] outside of tests.

mod claims;
mod requirements;
mod sign_in_policy;
#[cfg(test)]
mod tests;

pub use claims::VerifiedClaims;
pub use requirements::{CLOCK_SKEW, ClaimProblem, TokenAudience, TokenRequirements};
pub use sign_in_policy::{
    ParseGroupMappingError, ParseSignInRuleError, ProviderGroupMapping, SignInPolicy,
    SignInRefusal, SignInRule,
};
