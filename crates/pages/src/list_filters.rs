//! The filters of lists as forms, and links to further pages.

use maud::{Markup, html};

use crate::format::query_text;

/// What a list is filtered by, as a person wrote it; empty where it is not filtered.
#[derive(Clone, Debug, Default)]
pub struct ListFilters {
    pub service: String,
    pub state: String,
    pub environment: String,
    pub branch: String,
    pub person: String,
    pub since: String,
    pub until: String,
    /// Why a value can't be used; the list is then empty.
    pub problem: Option<String>,
    /// The cursor of the next page.
    pub next: Option<u64>,
}

/// A filter that a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterField {
    State(&'static [&'static str]),
    Environment,
    Branch,
    Person,
}

/// Times that the form offers.
const TIMES: [(&str, &str); 5] = [
    ("", "any time"),
    ("1h", "the last hour"),
    ("24h", "the last 24 hours"),
    ("7d", "the last 7 days"),
    ("30d", "the last 30 days"),
];

impl ListFilters {
    /// Whether anything is filtered.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_empty())
    }

    fn pairs(&self) -> [(&'static str, &str); 7] {
        [
            ("service", &self.service),
            ("state", &self.state),
            ("environment", &self.environment),
            ("branch", &self.branch),
            ("person", &self.person),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn next_address(&self, action: &str, cursor: u64) -> String {
        let given = self
            .pairs()
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        let parameters = given.map(|(name, value)| format!("{name}={}&", query_text(value)));
        format!("{action}?{}cursor={cursor}", parameters.collect::<String>())
    }
}

/// The form above a list.
pub(crate) fn filter_form(action: &str, filters: &ListFilters, fields: &[FilterField]) -> Markup {
    html! {
        form.filters action=(action) role="search" aria-label="Filter the list" {
            (text_field("service", "Service", &filters.service))
            @for field in fields {
                @match field {
                    FilterField::State(states) => label { "State" select name="state" {
                        option value="" { "any" }
                        @for state in *states { option value=(state) selected[*state == filters.state] { (state.replace('_', " ")) } }
                    } },
                    FilterField::Environment => (text_field("environment", "Environment", &filters.environment)),
                    FilterField::Branch => (text_field("branch", "Branch", &filters.branch)),
                    FilterField::Person => (text_field("person", "Person", &filters.person)),
                }
            }
            label { "Changed" select name="since" {
                @for (value, text) in TIMES { option value=(value) selected[value == filters.since] { (text) } }
                @if !TIMES.iter().any(|(value, _)| *value == filters.since) { option value=(filters.since) selected { "since " (filters.since) } }
            } }
            (text_field("until", "Until", &filters.until))
            button type="submit" { "Filter" }
            @if !filters.is_empty() { a href=(action) { "Clear" } }
        }
        @if let Some(problem) = &filters.problem { p.trouble role="alert" { (problem) } }
    }
}

fn text_field(name: &str, label: &str, value: &str) -> Markup {
    html! { label { (label) input type="text" name=(name) value=(value) maxlength="100" autocomplete="off"; } }
}

/// The link to the next page, if there is one.
pub(crate) fn next_page(action: &str, filters: &ListFilters) -> Markup {
    html! {
        @if let Some(cursor) = filters.next {
            nav.pager aria-label="Pages" { a rel="next" href=(filters.next_address(action, cursor)) { "Older entries" } }
        }
    }
}

/// What an empty list says: how to fill it, or that the filter leaves nothing.
pub(crate) fn empty_list(filters: &ListFilters, action: &str, first: &Markup) -> Markup {
    html! {
        section.empty {
            @if filters.is_empty() { (first) }
            @else { p { "Nothing matches these filters. " a href=(action) { "Show all" } } }
        }
    }
}
