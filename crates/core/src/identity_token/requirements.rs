//! The requirements for the claims of a token.

use jiff::{SignedDuration, Timestamp};

use super::claims::VerifiedClaims;

/// How far the clocks of a provider and of this server may differ.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Characters of a subject at most; OpenID Connect allows 255.
const SUBJECT_CHARS_MAX: usize = 255;

/// The required audience of a token.
#[derive(Clone, Copy, Debug)]
pub enum TokenAudience<'r> {
    /// The client of a login: it must be the only audience, or the authorized party.
    LoginClient(&'r str),
    /// A name that must be among the audiences.
    Named(&'r str),
}

/// The requirements for the claims of a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequirements<'r> {
    pub issuer: &'r str,
    pub audience: TokenAudience<'r>,
    /// The value that the login was started with.
    pub nonce: Option<&'r str>,
}

/// Why the claims of a token are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimProblem {
    #[error("it was issued by {0:?}, not by the configured issuer")]
    Issuer(String),
    #[error("it was issued for {0}, not for this server")]
    Audience(String),
    #[error("it has no claim `{0}`, or one that can't be read")]
    Missing(&'static str),
    #[error("it expired at {0}")]
    Expired(Timestamp),
    #[error("it is valid from {0} only: compare the clocks of both machines")]
    NotYetValid(Timestamp),
    #[error("it belongs to another login: start again at /login")]
    Nonce,
}

impl TokenRequirements<'_> {
    /// Checks the claims of a token; its subject.
    ///
    /// # Errors
    /// The token is for another purpose, or not valid at this time.
    pub fn check<'c>(
        &self,
        claims: &'c VerifiedClaims,
        now: Timestamp,
    ) -> Result<&'c str, ClaimProblem> {
        let issuer = claims.text("iss").unwrap_or_default();
        if issuer != self.issuer {
            return Err(ClaimProblem::Issuer(shortened(issuer)));
        }
        self.check_audience(claims)?;
        check_times(claims, now)?;
        if self.nonce.is_some() && claims.text("nonce") != self.nonce {
            return Err(ClaimProblem::Nonce);
        }
        let subject = claims.text("sub").unwrap_or_default();
        let is_valid = !subject.is_empty()
            && subject.chars().count() <= SUBJECT_CHARS_MAX
            && !subject.contains(char::is_control);
        is_valid
            .then_some(subject)
            .ok_or(ClaimProblem::Missing("sub"))
    }

    fn check_audience(&self, claims: &VerifiedClaims) -> Result<(), ClaimProblem> {
        let audiences = claims.texts("aud");
        let is_right = match self.audience {
            TokenAudience::Named(name) => audiences.contains(&name),
            TokenAudience::LoginClient(client) => {
                let party = claims.text("azp");
                let is_party = match party {
                    Some(party) => party == client,
                    None => audiences.len() == 1 && !claims.has("azp"),
                };
                audiences.contains(&client) && is_party
            }
        };
        match is_right {
            true => Ok(()),
            false => Err(ClaimProblem::Audience(shortened(&format!("{audiences:?}")))),
        }
    }
}

fn check_times(claims: &VerifiedClaims, now: Timestamp) -> Result<(), ClaimProblem> {
    let time = |name| claims.time(name).map_err(ClaimProblem::Missing);
    let required = |name| time(name)?.ok_or(ClaimProblem::Missing(name));
    let (expires_at, issued_at) = (required("exp")?, required("iat")?);
    if now.duration_since(expires_at) >= CLOCK_SKEW {
        return Err(ClaimProblem::Expired(expires_at));
    }
    let starts = [Some(issued_at), time("nbf")?];
    for start in starts.into_iter().flatten() {
        if start.duration_since(now) > CLOCK_SKEW {
            return Err(ClaimProblem::NotYetValid(start));
        }
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
