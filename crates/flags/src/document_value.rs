//! JSON that borrows its texts from the file it was read from: a set of 10,000 flags is read once and then dropped.

use std::borrow::Cow;
use std::fmt;

use foldhash::fast::FixedState;
use indexmap::IndexSet;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Members up to which a repeated key is searched by comparing it with each.
const COMPARED_KEYS_MAX: usize = 16;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DocumentValue<'t> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'t, str>),
    Array(Vec<DocumentValue<'t>>),
    Object(DocumentObject<'t>),
}

/// A JSON object, whose keys differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DocumentObject<'t> {
    members: Vec<(Cow<'t, str>, DocumentValue<'t>)>,
}

impl<'t> DocumentObject<'t> {
    /// A member by its key. Takes as long as there are members: not for objects of many.
    pub(crate) fn get(&self, key: &str) -> Option<&DocumentValue<'t>> {
        let (_, value) = self.members.iter().find(|(name, _)| name == key)?;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &DocumentValue<'t>)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_ref(), value))
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn to_json(&self) -> Map<String, Value> {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_json()))
            .collect()
    }
}

impl<'t> DocumentValue<'t> {
    pub(crate) fn from_json(value: &'t Value) -> DocumentValue<'t> {
        match value {
            Value::Null => DocumentValue::Null,
            Value::Bool(boolean) => DocumentValue::Bool(*boolean),
            Value::Number(number) => DocumentValue::Number(number.clone()),
            Value::String(text) => DocumentValue::String(Cow::Borrowed(text)),
            Value::Array(elements) => {
                DocumentValue::Array(elements.iter().map(DocumentValue::from_json).collect())
            }
            Value::Object(members) => DocumentValue::Object(DocumentObject {
                members: members
                    .iter()
                    .map(|(name, member)| {
                        (
                            Cow::Borrowed(name.as_str()),
                            DocumentValue::from_json(member),
                        )
                    })
                    .collect(),
            }),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            DocumentValue::Null => Value::Null,
            DocumentValue::Bool(boolean) => Value::Bool(*boolean),
            DocumentValue::Number(number) => Value::Number(number.clone()),
            DocumentValue::String(text) => Value::String(text.clone().into_owned()),
            DocumentValue::Array(elements) => {
                Value::Array(elements.iter().map(DocumentValue::to_json).collect())
            }
            DocumentValue::Object(members) => Value::Object(members.to_json()),
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[DocumentValue<'t>]> {
        match self {
            DocumentValue::Array(elements) => Some(elements),
            _ => None,
        }
    }

    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            DocumentValue::Number(number) => number.as_f64(),
            _ => None,
        }
    }
}

impl<'de: 't, 't> Deserialize<'de> for DocumentValue<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// Refuses a key that an object has twice: serde_json would keep the last one silently.
struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = DocumentValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(DocumentValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(DocumentValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(DocumentValue::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(DocumentValue::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(DocumentValue::Null, DocumentValue::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(DocumentValue::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(DocumentValue::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(DocumentValue::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, DocumentValue<'de>)> = Vec::new();
        let mut many_keys: IndexSet<Cow<'de, str>, FixedState> = IndexSet::default();
        while let Some(DocumentKey(key)) = entries.next_key()? {
            let is_repeated = if members.len() < COMPARED_KEYS_MAX {
                members.iter().any(|(name, _)| *name == key)
            } else {
                if many_keys.is_empty() {
                    many_keys.extend(members.iter().map(|(name, _)| name.clone()));
                }
                !many_keys.insert(key.clone())
            };
            if is_repeated {
                return Err(A::Error::custom(format_args!(
                    "the key `{key}` is there twice"
                )));
            }
            members.push((key, entries.next_value()?));
        }
        Ok(DocumentValue::Object(DocumentObject { members }))
    }
}

/// A key, borrowed when it has no escapes.
struct DocumentKey<'t>(Cow<'t, str>);

impl<'de: 't, 't> Deserialize<'de> for DocumentKey<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DocumentKeyVisitor)
    }
}

struct DocumentKeyVisitor;

impl<'de> Visitor<'de> for DocumentKeyVisitor {
    type Value = DocumentKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(DocumentKey(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(DocumentKey(Cow::Owned(value.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_refused_with_its_position() {
        let parse = |text: &str| {
            serde_json::from_str::<DocumentValue<'_>>(text).map(|value| value.to_json())
        };
        let error = parse("{\"a\": 1,\n \"a\": 2}").unwrap_err();
        assert_eq!(error.line(), 2);
        assert!(error.to_string().contains("`a` is there twice"));
        let many: Vec<String> = (0..100).map(|number| format!("\"{number}\": 1")).collect();
        assert!(parse(&format!("{{{}}}", many.join(",\n"))).is_ok());
        let error = parse(&format!("{{{},\n\"7\": 1,\n\"x\": 1}}", many.join(",\n"))).unwrap_err();
        assert_eq!(error.line(), 101);
    }

    #[test]
    fn values_are_read_as_serde_json_reads_them() {
        let text = r#"{"a": [1, -2, 3.5, true, null, "x\né"], "b\t": {"c": 18446744073709551615}}"#;
        let document: DocumentValue<'_> = serde_json::from_str(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(document.to_json(), value);
        assert_eq!(DocumentValue::from_json(&value), document);
    }
}
