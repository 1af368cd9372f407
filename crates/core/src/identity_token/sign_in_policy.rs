//! The policy of logins with a provider: allowed people, their user names and groups.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::claims::VerifiedClaims;
use crate::{
    ids::{GroupName, UserName},
    user_directory::{ExternalProfile, is_valid_text},
};

/// A rule that allows logins: `*`, `@GROUP` of the provider, `ada@example.com` or `*@example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInRule {
    Everyone,
    Group(String),
    Address(String),
    /// With the `@`, in lower case.
    Domain(String),
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rule for logins: write @GROUP for a group of the provider, an e-mail address, *@DOMAIN for all of a domain, or * for everyone"
)]
pub struct ParseSignInRuleError(String);

impl FromStr for SignInRule {
    type Err = ParseSignInRuleError;

    fn from_str(text: &str) -> Result<Self, ParseSignInRuleError> {
        let error = || ParseSignInRuleError(text.to_owned());
        if text == "*" {
            return Ok(Self::Everyone);
        }
        let (local, domain) = text.split_once('@').ok_or_else(error)?;
        match (local, domain) {
            (_, "") => Err(error()),
            ("", group) => Ok(Self::Group(group.to_owned())),
            (_, domain) if domain.contains(['@', '*']) => Err(error()),
            ("*", domain) => Ok(Self::Domain(format!("@{}", domain.to_lowercase()))),
            (local, _) if local.contains('*') => Err(error()),
            (..) => Ok(Self::Address(text.to_lowercase())),
        }
    }
}

/// A group of a provider, and the group of this server that its members are in: `PROVIDER_GROUP=GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderGroupMapping {
    pub provider_group: String,
    pub group: GroupName,
}

/// A text that maps no group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} maps no group: write PROVIDER_GROUP=GROUP, where GROUP is a group of this server (`shipway group list`)"
)]
pub struct ParseGroupMappingError(String);

impl FromStr for ProviderGroupMapping {
    type Err = ParseGroupMappingError;

    fn from_str(text: &str) -> Result<Self, ParseGroupMappingError> {
        let error = || ParseGroupMappingError(text.to_owned());
        // Names of groups in directories contain `=` themselves: cn=ops,dc=example,dc=com.
        let (provider_group, group) = text.rsplit_once('=').ok_or_else(error)?;
        if provider_group.is_empty() {
            return Err(error());
        }
        Ok(Self {
            provider_group: provider_group.to_owned(),
            group: group.parse().map_err(|_| error())?,
        })
    }
}

/// The rules of logins with a provider, and the mapping of groups.
#[derive(Clone, Debug)]
pub struct SignInPolicy {
    pub rules: Vec<SignInRule>,
    /// The claim with the groups of a user.
    pub groups_claim: String,
    pub mappings: Vec<ProviderGroupMapping>,
}

/// A person that the provider knows, and that may not sign in here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{who} may not sign in here: an administrator of this server allows it with `shipway server --oidc-allow`"
)]
pub struct SignInRefusal {
    who: String,
}

impl SignInPolicy {
    /// The profile of a person, if they may sign in.
    ///
    /// # Errors
    /// No rule allows it.
    pub fn admit(&self, claims: &VerifiedClaims) -> Result<ExternalProfile, SignInRefusal> {
        // Otherwise an address is what its owner claims it to be.
        let email = claims
            .text("email")
            .filter(|_| claims.is_true("email_verified"));
        let groups = claims.texts(&self.groups_claim);
        let address = email.map(str::to_lowercase);
        let is_allowed = self.rules.iter().any(|rule| match rule {
            SignInRule::Everyone => true,
            SignInRule::Group(group) => groups.contains(&group.as_str()),
            SignInRule::Address(allowed) => address.as_ref() == Some(allowed),
            SignInRule::Domain(domain) => address.as_ref().is_some_and(|it| it.ends_with(domain)),
        });
        if !is_allowed {
            return Err(SignInRefusal {
                who: refused_name(claims),
            });
        }
        let mapped = self.mappings.iter();
        let mapped = mapped.filter(|it| groups.contains(&it.provider_group.as_str()));
        let valid = |text: Option<&str>| text.filter(|it| is_valid_text(it)).map(str::to_owned);
        Ok(ExternalProfile {
            display_name: valid(claims.text("name")),
            email: valid(email),
            groups: mapped.map(|it| it.group.clone()).collect::<BTreeSet<_>>(),
        })
    }

    /// The user name that a person is given where no other user has it.
    #[must_use]
    pub fn preferred_name(claims: &VerifiedClaims) -> UserName {
        let names = ["preferred_username", "email", "name"];
        let names = names.iter().filter_map(|name| claims.text(name));
        let mut names = names.filter_map(user_name);
        names
            .next()
            .unwrap_or_else(|| "user".parse().expect("a word of letters is a name"))
    }
}

/// `Ada.Lovelace@example.com` as `ada-lovelace`; none when nothing of it can be in a name.
fn user_name(text: &str) -> Option<UserName> {
    let local = text.split('@').next().unwrap_or_default();
    let mut name = String::new();
    for c in local.chars() {
        let c = c.to_ascii_lowercase();
        match c.is_ascii_lowercase() || c.is_ascii_digit() {
            true => name.push(c),
            false if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            false => {}
        }
    }
    // Leaves room for a number.
    name.truncate(50);
    name.trim_end_matches('-').parse().ok()
}

fn refused_name(claims: &VerifiedClaims) -> String {
    let names = ["email", "preferred_username", "sub"];
    let mut names = names.iter().filter_map(|name| claims.text(name));
    let name = names.find(|name| is_valid_text(name));
    name.unwrap_or("this user").to_owned()
}

impl fmt::Display for SignInRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Group(group) => write!(f, "@{group}"),
            Self::Address(address) => f.write_str(address),
            Self::Domain(domain) => write!(f, "*{domain}"),
        }
    }
}
