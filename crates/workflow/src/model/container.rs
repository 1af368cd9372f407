//! `container:` and `services:`. An expression may give a whole container, or all services.

use serde::{Deserialize, Serialize};

use super::TemplateTable;
use crate::expr::{Contexts, EvalError, ExprValue, Template};

/// A container: of a job, or a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerDefinition {
    /// `image:`
    pub image: Template,
    /// `env:`
    pub env: TemplateTable,
    /// `ports:`
    pub ports: Vec<Template>,
    /// `volumes:`
    pub volumes: Vec<Template>,
    /// `options:`
    pub options: Option<Template>,
    /// `credentials:` `username` and `password`.
    pub credentials: TemplateTable,
    /// `command:` of a service.
    #[serde(default)]
    pub command: Option<Template>,
    /// `entrypoint:` of a service.
    #[serde(default)]
    pub entrypoint: Option<Template>,
}

/// `services:` of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobServices {
    /// One by one, by their names.
    Written(Vec<(String, ContainerDefinition)>),
    /// An expression that gives an object of them.
    Computed(Template),
}

impl Default for JobServices {
    fn default() -> Self {
        Self::Written(Vec::new())
    }
}

impl JobServices {
    /// The services whose names are written in the file.
    #[must_use]
    pub fn written(&self) -> &[(String, ContainerDefinition)] {
        match self {
            Self::Written(services) => services,
            Self::Computed(_) => &[],
        }
    }

    /// All services, with those containers filled in that an expression gives.
    pub fn resolve(
        &self,
        contexts: &Contexts<'_>,
    ) -> Result<Vec<(String, ContainerDefinition)>, EvalError> {
        let template = match self {
            Self::Written(services) => {
                let resolve = |(name, container): &(String, ContainerDefinition)| {
                    let container = container.resolve(contexts)?;
                    Ok(container.map(|container| (name.clone(), container)))
                };
                return services
                    .iter()
                    .filter_map(|it| resolve(it).transpose())
                    .collect();
            }
            Self::Computed(template) => template,
        };
        let object = match template.resolve(contexts)? {
            ExprValue::Object(object) => object,
            ExprValue::Null => return Ok(Vec::new()),
            other => {
                let kind = other.kind();
                return Err(template.error(format!(
                    "expected a mapping of names to containers, got a value of kind {kind}"
                )));
            }
        };
        let mut services = Vec::new();
        for (name, value) in object.iter() {
            let container = ContainerDefinition::from_value(value, template)?;
            services.extend(container.map(|it| (name.to_string(), it)));
        }
        Ok(services)
    }
}

impl ContainerDefinition {
    /// An image and nothing else.
    #[must_use]
    pub fn from_image(image: Template) -> Self {
        Self {
            image,
            env: TemplateTable::default(),
            ports: Vec::new(),
            volumes: Vec::new(),
            options: None,
            credentials: TemplateTable::default(),
            command: None,
            entrypoint: None,
        }
    }

    /// The container itself, or the one that its only expression gives. `None`: its image is empty, so there is none.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<Option<Self>, EvalError> {
        let is_image_alone = *self == Self::from_image(self.image.clone());
        if is_image_alone && self.image.as_expr().is_some() {
            return Self::from_value(&self.image.resolve(contexts)?, &self.image);
        }
        Ok(Some(Self {
            ports: splice_lists(&self.ports, contexts)?,
            volumes: splice_lists(&self.volumes, contexts)?,
            ..self.clone()
        }))
    }

    /// A container as an expression gives it: an image, or an object with the keys of `container:`.
    fn from_value(value: &ExprValue, from: &Template) -> Result<Option<Self>, EvalError> {
        let literal = |value: &ExprValue| {
            let text = value.to_text();
            (!text.is_empty()).then(|| Template::literal(text.to_string()))
        };
        let image = match value {
            ExprValue::Object(_) => value.get("image"),
            ExprValue::Array(_) => {
                return Err(
                    from.error("a container is an image or a mapping, not a list".to_owned())
                );
            }
            image => image.clone(),
        };
        let Some(image) = literal(&image) else {
            return Ok(None);
        };
        let list = |key: &str| match value.get(key) {
            ExprValue::Array(items) => items.iter().filter_map(literal).collect(),
            item => literal(&item).into_iter().collect(),
        };
        let table = |key: &str| {
            let ExprValue::Object(object) = value.get(key) else {
                return TemplateTable::default();
            };
            let entries = object.iter();
            let entries = entries.map(|(name, value)| {
                let text = value.to_text().to_string();
                (name.to_string(), Template::literal(text))
            });
            TemplateTable::Entries(entries.collect())
        };
        Ok(Some(Self {
            image,
            env: table("env"),
            ports: list("ports"),
            volumes: list("volumes"),
            options: literal(&value.get("options")),
            credentials: table("credentials"),
            command: literal(&value.get("command")),
            entrypoint: literal(&value.get("entrypoint")),
        }))
    }
}

/// The items of a list, with the items of lists that expressions give in their place.
fn splice_lists(items: &[Template], contexts: &Contexts<'_>) -> Result<Vec<Template>, EvalError> {
    let mut spliced = Vec::new();
    for item in items {
        let value = item.as_expr().map(|expr| expr.eval(contexts)).transpose()?;
        match value {
            Some(ExprValue::Array(values)) => {
                let texts = values.iter().map(|value| value.to_text().to_string());
                spliced.extend(texts.map(Template::literal));
            }
            Some(_) | None => spliced.push(item.clone()),
        }
    }
    Ok(spliced)
}
