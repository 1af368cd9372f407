//! The web pages, as functions from views to HTML: readable without a script, kept current by one.
//!
//! *Invariants.* Nothing here knows a store, an engine or HTTP: the server builds the views and sends the HTML. All
//! text of users is escaped (maud escapes, `markdown` builds its elements itself), because a commit message or a step's summary may
//! contain anything. Whatever a script adds is an improvement of something that works without it.
#![allow(
    missing_docs,
    reason = "fields of views are documented where their name doesn't say it all"
)]

mod format;
mod layout;
mod markdown;
mod rollout;
mod run;
mod service;
mod services;
mod test_results;

pub use layout::{CONTENT_SECURITY_POLICY, not_found_page};
pub use rollout::RolloutPage;
pub use run::RunPage;
pub use service::ServicePage;
pub use services::ServicesPage;

/// The script of all pages.
pub const SCRIPT: &str = include_str!("shipway.js");

/// The style sheet of all pages and of the plots in them.
#[must_use]
pub fn style_sheet() -> String {
    let plots = shipway_analysis::plot::STYLE;
    format!("{}{plots}", include_str!("shipway.css"))
}
