//! Expands secrets in texts of `shipway.yaml`, such as `https://hooks.example/$TOKEN`.
//!
//! # Invariants
//!
//! A text that names an unknown secret is never used, and no error contains a value.
//!
//! ```
//! use shipway_drivers::secret_expansion::expand_secrets;
//! let secrets = |name: &str| (name == "KEY").then_some("s3cret");
//! assert_eq!(expand_secrets("Bearer $KEY", secrets).as_deref(), Ok("Bearer s3cret"));
//! assert!(expand_secrets("$NONE", secrets).unwrap_err().to_string().contains("the secret NONE is not set"));
//! ```

/// A text names a secret that the server doesn't have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret {0} is not set: `shipway secret set {0}`")]
pub struct SecretNotSet(pub String);

/// Replaces each `$NAME` in `text` by the secret's value; a `$` that no name follows stays.
///
/// # Errors
/// When a secret is unknown.
pub fn expand_secrets<S: AsRef<str>>(
    text: &str,
    secrets: impl Fn(&str) -> Option<S>,
) -> Result<String, SecretNotSet> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        out.push_str(&rest[..place]);
        let after = &rest[place + 1..];
        let end = after
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(after.len());
        let name = &after[..end];
        if name.is_empty() {
            out.push('$');
        } else {
            let value = secrets(name).ok_or_else(|| SecretNotSet(name.to_owned()))?;
            out.push_str(value.as_ref());
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_wherever_they_stand_and_other_dollars_stay() {
        let secrets = |name: &str| (name == "HOOK").then_some("http://127.0.0.1/x");
        assert_eq!(
            expand_secrets("$HOOK/y?z=$&a=$HOOK", secrets),
            Ok("http://127.0.0.1/x/y?z=$&a=http://127.0.0.1/x".to_owned())
        );
        assert!(
            expand_secrets("$HOOKS", secrets).is_err(),
            "the whole name counts"
        );
    }
}
