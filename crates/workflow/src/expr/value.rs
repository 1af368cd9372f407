//! The values of expressions, and how one kind becomes another. The rules are GitHub's runner's, surprises included.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

use super::text;

/// A value. Cloning is cheap; arrays and objects are shared, and equal only to themselves.
#[derive(Clone, Debug, Default)]
pub enum ExprValue {
    /// Nothing: a property that isn't there.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A number; there are no integers.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    Array(Arc<Vec<ExprValue>>),
    /// Properties by name.
    Object(Arc<ExprObject>),
}

impl ExprValue {
    /// What kind it is, as GitHub names it: `null`, `boolean`, `number`, `string`, `array`, `object`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// An object of these properties, in this order.
    pub fn object<K: Into<Arc<str>>>(entries: impl IntoIterator<Item = (K, ExprValue)>) -> Self {
        Self::Object(Arc::new(entries.into_iter().collect()))
    }

    /// A list of these values.
    pub fn array(items: impl IntoIterator<Item = ExprValue>) -> Self {
        Self::Array(Arc::new(items.into_iter().collect()))
    }

    /// Whether it is neither an array nor an object.
    #[must_use]
    pub const fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// Whether a condition holds with it: not null, false, 0, NaN or the empty string.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0.0 && !value.is_nan(),
            Self::String(value) => !value.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The number it counts as; NaN for arrays, objects and text that isn't a number.
    #[must_use]
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::String(value) => text::parse_number(value),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// The text it is written as; `Array` and `Object` for collections.
    #[must_use]
    pub fn to_text(&self) -> Arc<str> {
        match self {
            Self::Null => Arc::from(""),
            Self::Bool(true) => Arc::from("true"),
            Self::Bool(false) => Arc::from("false"),
            Self::Number(value) => Arc::from(text::format_number(*value)),
            Self::String(value) => Arc::clone(value),
            Self::Array(_) => Arc::from("Array"),
            Self::Object(_) => Arc::from("Object"),
        }
    }

    /// The property `name`, or null.
    #[must_use]
    pub fn get(&self, name: &str) -> Self {
        match self {
            Self::Object(object) => object.get(name).cloned().unwrap_or_default(),
            _ => Self::Null,
        }
    }

    /// GitHub's `==`: different kinds are compared as numbers, text ignores case, collections equal only themselves.
    #[must_use]
    pub fn loosely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::String(left), Self::String(right)) => text::equal(left, right),
            (Self::Array(left), Self::Array(right)) => Arc::ptr_eq(left, right),
            (Self::Object(left), Self::Object(right)) => Arc::ptr_eq(left, right),
            (Self::Array(_) | Self::Object(_), _) | (_, Self::Array(_) | Self::Object(_)) => false,
            (left, right) => left.to_number() == right.to_number(),
        }
    }

    /// GitHub's order, behind `<` and its kin; none where neither is less: NaN, collections, and null with null.
    #[must_use]
    pub fn loosely_compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => None,
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::String(left), Self::String(right)) => Some(text::compare(left, right)),
            (Self::Array(_) | Self::Object(_), _) | (_, Self::Array(_) | Self::Object(_)) => None,
            (left, right) => left.to_number().partial_cmp(&right.to_number()),
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        let inside: usize = match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::weight).sum(),
            Self::Object(object) => object
                .iter()
                .map(|(name, value)| name.len() + value.weight())
                .sum(),
        };
        size_of::<Self>() + inside
    }
}

/// Equal in structure, to the letter; for tests and for noticing changes. Expressions use [`ExprValue::loosely_equals`].
impl PartialEq for ExprValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => {
                left == right || (left.is_nan() && right.is_nan())
            }
            (Self::String(left), Self::String(right)) => left == right,
            (Self::Array(left), Self::Array(right)) => left == right,
            (Self::Object(left), Self::Object(right)) => left == right,
            _ => false,
        }
    }
}

impl From<&str> for ExprValue {
    fn from(text: &str) -> Self {
        Self::String(Arc::from(text))
    }
}

impl From<ExprObject> for ExprValue {
    fn from(object: ExprObject) -> Self {
        Self::Object(Arc::new(object))
    }
}

impl From<Arc<str>> for ExprValue {
    fn from(text: Arc<str>) -> Self {
        Self::String(text)
    }
}

impl From<String> for ExprValue {
    fn from(text: String) -> Self {
        Self::String(Arc::from(text))
    }
}

impl From<bool> for ExprValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for ExprValue {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&serde_json::Value> for ExprValue {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(value) => Self::Number(value.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(value) => Self::from(value.as_str()),
            serde_json::Value::Array(items) => Self::array(items.iter().map(Self::from)),
            serde_json::Value::Object(entries) => Self::object(
                entries
                    .iter()
                    .map(|(name, value)| (name.as_str(), Self::from(value))),
            ),
        }
    }
}

/// Whether property names differ when only their case does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PropertyNames {
    /// `a.B` finds `b`: everywhere but in `env`.
    #[default]
    IgnoreCase,
    /// `env` on Linux.
    Exact,
}

/// Properties in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub struct ExprObject {
    names: PropertyNames,
    entries: Vec<(Arc<str>, ExprValue)>,
    index: BTreeMap<Box<str>, usize>,
}

impl ExprObject {
    /// An empty object.
    #[must_use]
    pub const fn new(names: PropertyNames) -> Self {
        Self {
            names,
            entries: Vec::new(),
            index: BTreeMap::new(),
        }
    }

    /// Sets a property. An existing one keeps its position and spelling.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, value: ExprValue) {
        let name = name.into();
        let key = self.key(&name);
        if let Some(&at) = self.index.get(&key) {
            self.entries[at].1 = value;
        } else {
            self.index.insert(key, self.entries.len());
            self.entries.push((name, value));
        }
    }

    /// The property `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ExprValue> {
        self.index
            .get(&self.key(name))
            .map(|&at| &self.entries[at].1)
    }

    /// All properties, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &ExprValue)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn key(&self, name: &str) -> Box<str> {
        match self.names {
            PropertyNames::IgnoreCase => text::fold(name).into(),
            PropertyNames::Exact => name.into(),
        }
    }
}

impl PartialEq for ExprObject {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, ExprValue)> for ExprObject {
    fn from_iter<I: IntoIterator<Item = (K, ExprValue)>>(entries: I) -> Self {
        let mut object = Self::default();
        entries
            .into_iter()
            .for_each(|(name, value)| object.insert(name, value));
        object
    }
}

impl Serialize for ExprValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            // Whole numbers are written without a fraction while a double holds them exactly.
            Self::Number(value)
                if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 =>
            {
                serializer.serialize_i64(*value as i64)
            }
            Self::Number(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items.iter() {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for (name, value) in object.iter() {
                    map.serialize_entry(name.as_ref(), value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for ExprValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = ExprValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain JSON")
    }

    fn visit_unit<E>(self) -> Result<ExprValue, E> {
        Ok(ExprValue::Null)
    }

    fn visit_none<E>(self) -> Result<ExprValue, E> {
        Ok(ExprValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ExprValue, D::Error> {
        ExprValue::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ExprValue, E> {
        Ok(ExprValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ExprValue, E> {
        Ok(ExprValue::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ExprValue, E> {
        Ok(ExprValue::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ExprValue, E> {
        Ok(ExprValue::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<ExprValue, E> {
        Ok(ExprValue::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ExprValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(ExprValue::array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExprValue, A::Error> {
        let mut object = ExprObject::default();
        while let Some((name, value)) = map.next_entry::<String, ExprValue>()? {
            object.insert(name, value);
        }
        Ok(ExprValue::Object(Arc::new(object)))
    }
}
