//! Container settings of a workflow, with expressions evaluated.

use shipway_workflow::{
    expr::{Contexts, ExprValue, Template},
    model::ContainerDefinition,
};

use super::{ContainerError, split_args::split_args};

#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct ContainerSettings {
    pub(super) image: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) ports: Vec<String>,
    pub(super) volumes: Vec<String>,
    pub(super) options: Vec<String>,
    /// User name and password.
    pub(super) credentials: Option<(String, String)>,
    pub(super) entrypoint: Option<String>,
    pub(super) command: Vec<String>,
}

impl ContainerSettings {
    /// `None` if the image is empty: then no container is started.
    pub(super) fn evaluate(
        container: &ContainerDefinition,
        contexts: &Contexts<'_>,
    ) -> Result<Option<Self>, ContainerError> {
        let image = container.image.resolve(contexts)?;
        let mut settings = match &image {
            ExprValue::Object(_) => Self::from_value(&image)?,
            other => Self {
                image: other.to_text().to_string(),
                ..Self::default()
            },
        };
        settings.image = without_scheme(&settings.image).to_owned();
        if settings.image.is_empty() {
            return Ok(None);
        }
        let texts = |templates: &[Template]| -> Result<Vec<String>, ContainerError> {
            let texts = templates.iter().map(|it| it.resolve_text(contexts));
            Ok(texts.collect::<Result<_, _>>()?)
        };
        let text = |template: &Option<Template>| -> Result<String, ContainerError> {
            let text = template.as_ref().map(|it| it.resolve_text(contexts));
            Ok(text.transpose()?.unwrap_or_default())
        };
        settings.env.extend(container.env.resolve(contexts)?);
        settings.ports.extend(texts(&container.ports)?);
        settings.volumes.extend(texts(&container.volumes)?);
        let options = text(&container.options)?;
        settings.options.extend(split_option("options", &options)?);
        let command = text(&container.command)?;
        settings.command.extend(split_option("command", &command)?);
        let entrypoint = Some(text(&container.entrypoint)?);
        settings.entrypoint = entrypoint
            .filter(|it| !it.is_empty())
            .or(settings.entrypoint);
        let credentials = container.credentials.resolve(contexts)?;
        settings.credentials = user_and_password(&credentials).or(settings.credentials);
        for list in [&mut settings.ports, &mut settings.volumes] {
            list.retain(|it| !it.trim().is_empty());
        }
        Ok(Some(settings))
    }

    /// `container: ${{ fromJSON(…) }}`
    fn from_value(value: &ExprValue) -> Result<Self, ContainerError> {
        let text = |name: &str| value.get(name).to_text().to_string();
        let list = |name: &str| match value.get(name) {
            ExprValue::Array(items) => items.iter().map(|it| it.to_text().to_string()).collect(),
            _ => Vec::new(),
        };
        let env = match value.get("env") {
            ExprValue::Object(env) => env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_text().to_string()))
                .collect(),
            _ => Vec::new(),
        };
        let credentials = value.get("credentials");
        let credential = |name: &str| {
            let text = credentials.get(name).to_text().to_string();
            (!text.is_empty()).then_some(text)
        };
        Ok(Self {
            image: text("image"),
            env,
            ports: list("ports"),
            volumes: list("volumes"),
            options: split_option("options", &text("options"))?,
            credentials: credential("username").zip(credential("password")),
            entrypoint: Some(text("entrypoint")).filter(|it| !it.is_empty()),
            command: split_option("command", &text("command"))?,
        })
    }

    /// The registry in the image's name; empty for Docker Hub.
    pub(super) fn registry(&self) -> &str {
        match self.image.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => "",
        }
    }
}

/// The image without `docker://`.
fn without_scheme(image: &str) -> &str {
    let image = image.trim();
    match image.get(..9) {
        Some(scheme) if scheme.eq_ignore_ascii_case("docker://") => &image[9..],
        _ => image,
    }
}

fn user_and_password(credentials: &[(String, String)]) -> Option<(String, String)> {
    let credential = |wanted: &str| {
        let found = credentials.iter().find(|(name, _)| name == wanted);
        found
            .map(|(_, value)| value.clone())
            .filter(|it| !it.is_empty())
    };
    credential("username").zip(credential("password"))
}

fn split_option(option: &'static str, text: &str) -> Result<Vec<String>, ContainerError> {
    split_args(text).ok_or_else(|| ContainerError::UnclosedQuote {
        option,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_the_image() {
        for (image, registry) in [
            ("postgres:15", ""),
            ("library/redis", ""),
            ("ghcr.io/owner/image:1", "ghcr.io"),
            ("localhost/image", "localhost"),
            ("here:5000/a/b@sha256:0", "here:5000"),
        ] {
            let settings = ContainerSettings {
                image: image.to_owned(),
                ..ContainerSettings::default()
            };
            assert_eq!(settings.registry(), registry);
        }
    }
}
