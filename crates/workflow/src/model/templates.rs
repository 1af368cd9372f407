//! Values of a workflow file that are known when their expressions are evaluated: tables of texts, and whole trees.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::expr::{Contexts, EvalError, ExprObject, ExprValue, Template};

/// Named values, in the order of the file: `env`, `with`, `outputs`, `secrets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateTable {
    /// One by one.
    Entries(Vec<(String, Template)>),
    /// An expression that gives the whole: `${{ fromJSON(…) }}`.
    Computed(Template),
    /// Written out with names that are expressions; gives an object.
    Dynamic(TemplateTree),
}

impl Default for TemplateTable {
    fn default() -> Self {
        Self::Entries(Vec::new())
    }
}

impl TemplateTable {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Entries(entries) if entries.is_empty())
    }

    /// The entry `name`, ignoring case, when it is written in the file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Template> {
        match self {
            Self::Entries(entries) => entries
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value),
            Self::Computed(_) | Self::Dynamic(_) => None,
        }
    }

    /// The names and values, as text.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<Vec<(String, String)>, EvalError> {
        if let Self::Entries(entries) = self {
            let mut room = ValueBudget::new();
            let texts = entries.iter().map(|(name, value)| {
                let text = value.resolve_text(contexts)?;
                room.take(text.len(), value)?;
                Ok((name.clone(), text))
            });
            return texts.collect();
        }
        let values = self.resolve_computed(contexts)?.into_iter().flatten();
        let text = |(name, value): (String, ExprValue)| (name, value.to_text().to_string());
        Ok(values.map(text).collect())
    }

    /// The names and values of a table whose names depend on expressions; `None` for other tables.
    pub fn resolve_computed(
        &self,
        contexts: &Contexts<'_>,
    ) -> Result<Option<Vec<(String, ExprValue)>>, EvalError> {
        let value = match self {
            Self::Entries(_) => return Ok(None),
            Self::Computed(template) => match template.resolve(contexts)? {
                value @ (ExprValue::Object(_) | ExprValue::Null) => value,
                other => {
                    return Err(template.error(format!(
                        "expected a mapping of names to values, got a value of kind {}",
                        other.kind()
                    )));
                }
            },
            Self::Dynamic(tree) => tree.resolve(contexts)?,
        };
        let ExprValue::Object(object) = value else {
            return Ok(Some(Vec::new()));
        };
        let entries = object.iter();
        let entries = entries.map(|(name, value)| (name.to_string(), value.clone()));
        Ok(Some(entries.collect()))
    }
}

/// Any YAML, with expressions in its leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateTree {
    /// A plain value.
    Value(ExprValue),
    /// Text with expressions.
    Template(Template),
    /// A list.
    List(Vec<TemplateTree>),
    /// Names and values.
    Map(Vec<(String, TemplateTree)>),
    /// Names and values; a name may be an expression.
    DynamicMap(Vec<(TemplateKey, TemplateTree)>),
}

/// A name in a mapping where names may be expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKey {
    /// Text with or without expressions.
    Name(Template),
    /// `${{ insert }}`: the entries of the value are inserted here.
    Insert(Template),
}

impl TemplateTree {
    /// Its value.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<ExprValue, EvalError> {
        self.resolve_within(contexts, &mut ValueBudget::new())
    }

    fn resolve_within(
        &self,
        contexts: &Contexts<'_>,
        room: &mut ValueBudget,
    ) -> Result<ExprValue, EvalError> {
        Ok(match self {
            Self::Value(value) => value.clone(),
            Self::Template(template) => {
                let value = template.resolve(contexts)?;
                room.take(value.weight(), template)?;
                value
            }
            Self::List(items) => {
                let mut values = Vec::new();
                for item in items {
                    match (item.resolve_within(contexts, room)?, item) {
                        // As at GitHub, a list that an expression gives is spliced into the list around it.
                        (ExprValue::Array(inner), Self::Template(_)) => {
                            values.extend(inner.iter().cloned());
                        }
                        (value, _) => values.push(value),
                    }
                }
                ExprValue::array(values)
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(name, value)| {
                    Ok((name.as_str(), value.resolve_within(contexts, room)?))
                });
                ExprValue::object(entries.collect::<Result<Vec<_>, EvalError>>()?)
            }
            Self::DynamicMap(entries) => {
                let mut object = ExprObject::default();
                for (key, value) in entries {
                    let value = value.resolve_within(contexts, room)?;
                    key.add_to(&mut object, value, contexts)?;
                }
                ExprValue::Object(Arc::new(object))
            }
        })
    }
}

impl TemplateKey {
    /// Adds the entry with this key, or the entries that are inserted in its place. Duplicate names are errors.
    fn add_to(
        &self,
        object: &mut ExprObject,
        value: ExprValue,
        contexts: &Contexts<'_>,
    ) -> Result<(), EvalError> {
        let (template, entries) = match self {
            Self::Name(template) => {
                let name = template.resolve_text(contexts)?;
                (template, vec![(name, value)])
            }
            Self::Insert(template) => match value {
                ExprValue::Object(inserted) => {
                    let entries = inserted.iter();
                    let entries = entries.map(|(name, value)| (name.to_string(), value.clone()));
                    (template, entries.collect())
                }
                other => {
                    return Err(template.error(format!(
                        "only a mapping can be inserted, not a value of kind {}",
                        other.kind()
                    )));
                }
            },
        };
        for (name, value) in entries {
            if name.is_empty() {
                return Err(template.error("the name is empty".to_owned()));
            }
            if object.get(&name).is_some() {
                return Err(template.error(format!("`{name}` is already defined")));
            }
            object.insert(name, value);
        }
        Ok(())
    }
}

/// What the expressions of one table or tree may make together; GitHub's limit for a whole file.
struct ValueBudget(usize);

impl ValueBudget {
    const fn new() -> Self {
        Self(crate::expr::BYTES_MAX)
    }

    fn take(&mut self, bytes: usize, template: &Template) -> Result<(), EvalError> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            let most = crate::expr::BYTES_MAX >> 20;
            template.error(format!("these values together are larger than {most} MiB"))
        })?;
        Ok(())
    }
}
