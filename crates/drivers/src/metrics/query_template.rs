//! Expands templates and secrets in queries.

use std::{collections::BTreeMap, time::Duration};

use shipway_core::config::ProviderQuery;

use crate::secret_expansion::{SecretNotSet, expand_secrets};

/// What a query is about: the values for its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySubject {
    /// The release.
    pub release: u32,
    /// The stable release; `None` at a first deployment.
    pub stable: Option<u32>,
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
}

/// Why a query can't be filled in.
#[derive(Debug, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("there is no stable release to query")]
    NoStable,
    #[error(transparent)]
    Secret(#[from] SecretNotSet),
}

/// Expands `{{…}}` in `query`, and secrets in fields that may refer to them: not in queries and commands, where `$` has a
/// meaning of its own.
pub(super) fn fill_query(
    query: &ProviderQuery,
    about: &QuerySubject,
    window: Duration,
    secrets: &dyn Fn(&str) -> Option<String>,
) -> Result<ProviderQuery, TemplateError> {
    let plain = |text: &String| fill_template(text, about, window);
    let secret = |text: &String| -> Result<String, TemplateError> {
        Ok(expand_secrets(
            &fill_template(text, about, window)?,
            secrets,
        )?)
    };
    let headers = |headers: &BTreeMap<String, String>| {
        let filled = headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), secret(value)?)));
        filled.collect::<Result<BTreeMap<_, _>, TemplateError>>()
    };
    Ok(match query {
        ProviderQuery::Prometheus {
            url,
            query,
            headers: sent,
        } => ProviderQuery::Prometheus {
            url: secret(url)?,
            query: plain(query)?,
            headers: headers(sent)?,
        },
        ProviderQuery::Datadog {
            site,
            query,
            api_key,
            app_key,
        } => ProviderQuery::Datadog {
            site: secret(site)?,
            query: plain(query)?,
            api_key: secret(api_key)?,
            app_key: secret(app_key)?,
        },
        ProviderQuery::Web {
            url,
            method,
            headers: sent,
            body,
            path,
        } => ProviderQuery::Web {
            url: secret(url)?,
            method: method.clone(),
            headers: headers(sent)?,
            body: body.as_ref().map(secret).transpose()?,
            path: path.clone(),
        },
        ProviderQuery::Exec { command, path } => ProviderQuery::Exec {
            command: plain(command)?,
            path: path.clone(),
        },
        ProviderQuery::Events => ProviderQuery::Events,
    })
}

/// Formats a duration for Prometheus.
pub(super) fn format_window(window: Duration) -> String {
    format!("{}s", window.as_secs().max(1))
}

fn fill_template(
    text: &str,
    about: &QuerySubject,
    window: Duration,
) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("{{") {
        let (before, after) = (&rest[..begin], &rest[begin + 2..]);
        filled.push_str(before);
        let end = after.find("}}");
        let word = end.map(|end| after[..end].trim());
        let value = match word {
            Some("release") => about.release.to_string(),
            Some("stable") => match about.stable {
                Some(stable) => stable.to_string(),
                None => return Err(TemplateError::NoStable),
            },
            Some("service") => about.service.clone(),
            Some("environment") => about.environment.clone(),
            Some("window") => format_window(window),
            // Braces of the query itself.
            _ => {
                filled.push_str("{{");
                rest = after;
                continue;
            }
        };
        filled.push_str(&value);
        rest = &after[end.map_or(0, |end| end + 2)..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(stable: Option<u32>) -> QuerySubject {
        QuerySubject {
            release: 4,
            stable,
            service: "shop".into(),
            environment: "production".into(),
        }
    }

    #[test]
    fn templates_are_filled_and_other_braces_stay() {
        let fill = |text: &str| fill_template(text, &about(Some(3)), Duration::from_secs(90));
        assert_eq!(
            fill("r={{release}} s={{ stable }} {{service}}/{{environment}} [{{window}}]").unwrap(),
            "r=4 s=3 shop/production [90s]"
        );
        assert_eq!(fill("{{ .Other }} {{ {a}").unwrap(), "{{ .Other }} {{ {a}");
        assert!(
            fill_template("{{stable}}", &about(None), Duration::ZERO)
                .unwrap_err()
                .to_string()
                .contains("no stable")
        );
    }

    #[test]
    fn a_missing_secret_is_named_and_secrets_stand_where_they_may() {
        let secrets = |name: &str| (name == "KEY").then(|| "s3cret".to_owned());
        let query = |url: &str| ProviderQuery::Prometheus {
            url: url.to_owned(),
            query: "up{a=~\"x$KEY\"}".to_owned(),
            headers: [("Authorization".to_owned(), "Bearer $KEY".to_owned())].into(),
        };
        let filled = fill_query(
            &query("http://p/$KEY"),
            &about(None),
            Duration::from_secs(60),
            &secrets,
        );
        let ProviderQuery::Prometheus {
            url,
            query: asked,
            headers,
        } = filled.unwrap()
        else {
            unreachable!()
        };
        assert_eq!(
            (url.as_str(), asked.as_str()),
            ("http://p/s3cret", "up{a=~\"x$KEY\"}")
        );
        assert_eq!(headers["Authorization"], "Bearer s3cret");
        let missing = fill_query(
            &query("http://$NONE"),
            &about(None),
            Duration::ZERO,
            &secrets,
        );
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .contains("the secret NONE is not set")
        );
    }
}
