//! The properties by which lists of rows are filtered. Stores index them, so that a filter reads only the rows that it finds.

use serde_json::Value;

use crate::aggregate::ViewRow;

/// Characters of a facet's value that count; longer values are compared by their start.
const FACET_CHARS_MAX: usize = 100;

/// A property by which lists are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowFacet {
    /// The status: `success`, `rolled_back`.
    State,
    Environment,
    Branch,
    /// Who pushed it or asked for it, as [`person_facet`] writes it.
    Person,
}

impl RowFacet {
    pub const ALL: [Self; 4] = [Self::State, Self::Environment, Self::Branch, Self::Person];

    /// Where a kind of rows has this facet, by JSON pointers of which the first that is a text counts.
    fn pointers(self, kind: &str) -> &'static [&'static str] {
        match (kind, self) {
            ("run" | "rollout" | "rollout-approval", Self::State) => &["/status"],
            ("rollout" | "rollout-approval" | "job-approval" | "delivery", Self::Environment) => {
                &["/environment"]
            }
            ("run", Self::Branch) => &["/branch"],
            ("release", Self::Branch) => &["/config/branch"],
            ("run" | "rollout" | "rollout-approval" | "audit", Self::Person) => &["/by"],
            ("release", Self::Person) => &["/by/person/name", "/by/push/name", "/commit/author"],
            _ => &[],
        }
    }

    /// A value as it is stored and compared.
    #[must_use]
    pub fn normalize(self, value: &str) -> String {
        match self {
            Self::Person => person_facet(value),
            Self::State | Self::Environment | Self::Branch => {
                value.chars().take(FACET_CHARS_MAX).collect()
            }
        }
    }
}

impl ViewRow {
    /// The value of a facet; none if rows of this kind don't have it.
    #[must_use]
    pub fn facet(&self, facet: RowFacet) -> Option<String> {
        let mut pointers = facet.pointers(&self.kind).iter();
        let text = pointers.find_map(|pointer| self.doc.pointer(pointer).and_then(Value::as_str));
        text.map(|text| facet.normalize(text))
    }
}

/// A person's name for comparison: without the address, in lower case. `Ada <ada@example.com>` is `ada`.
#[must_use]
pub fn person_facet(name: &str) -> String {
    let name = match name.split_once(" <") {
        Some((name, _)) if !name.is_empty() => name,
        _ => name,
    };
    let characters = name.trim().chars().take(FACET_CHARS_MAX);
    characters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(kind: &str, doc: Value) -> ViewRow {
        ViewRow {
            kind: kind.to_owned(),
            key: "shop/1".to_owned(),
            service: "shop".to_owned(),
            live: false,
            doc,
        }
    }

    #[test]
    fn a_facet_is_a_text_of_the_document_and_a_kind_without_it_has_none() {
        let run = json!({ "status": "failure", "branch": "main", "by": "Ada Lovelace <ada@example.com>" });
        let run = row("run", run);
        let facets = RowFacet::ALL.map(|facet| run.facet(facet));
        let expected = [Some("failure"), None, Some("main"), Some("ada lovelace")];
        assert_eq!(facets, expected.map(|text| text.map(str::to_owned)));
        for doc in [json!({}), json!({ "status": 3 }), json!(null)] {
            assert_eq!(row("run", doc).facet(RowFacet::State), None);
        }
        let service = row("service", json!({ "status": "failure" }));
        assert_eq!(service.facet(RowFacet::State), None);
    }

    #[test]
    fn the_person_of_a_release_is_its_pusher_or_else_the_author() {
        for (by, expected) in [
            (json!({ "push": { "name": "Bob" } }), "bob"),
            (json!({ "person": { "name": "Cy" } }), "cy"),
            (json!({ "shipway": "a schedule" }), "ada"),
        ] {
            let doc = json!({ "by": by, "commit": { "author": "Ada <ada@example.com>" } });
            let person = row("release", doc).facet(RowFacet::Person);
            assert_eq!(person.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_very_long_name_is_compared_by_its_start() {
        let long = "x".repeat(1_000_000);
        assert_eq!(person_facet(&long).len(), FACET_CHARS_MAX);
        assert_eq!(RowFacet::Branch.normalize(&long).len(), FACET_CHARS_MAX);
    }
}
