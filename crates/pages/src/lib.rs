//! The web pages, as functions from views to HTML: readable without a script, kept current by one.
//!
//! *Invariants.* Nothing here knows a store, an engine or HTTP: the server builds the views and sends the HTML. All
//! text of users is escaped (maud escapes, `markdown` builds its elements itself), because a commit message or a step's summary may
//! contain anything. Whatever a script adds is an improvement of something that works without it.
#![allow(
    missing_docs,
    reason = "fields of views are documented where their name doesn't say it all"
)]

mod account_frame;
mod action_button;
mod ansi_text;
mod approval_link;
mod approvals;
mod badge;
mod compare;
mod delivery_lists;
mod environment;
mod environment_card;
mod environment_rules;
mod foreign_text;
mod format;
mod instance_log;
mod layout;
mod list_filters;
mod login;
mod markdown;
mod overview;
mod release;
mod release_contents;
mod rollout;
mod run;
mod service;
mod settings;
mod test_results;

pub use account_frame::{SignedInUser, add_account};
pub use approval_link::{ApprovalLinkPage, ApprovalLinkStage};
pub use approvals::{ApprovalsPage, InboxEntry, InboxRollout};
pub use badge::badge_svg;
pub use compare::ComparePage;
pub use delivery_lists::ListPage;
pub use environment::EnvironmentPage;
pub use instance_log::{InstanceLogPage, instance_log_lines};
pub use layout::{CONTENT_SECURITY_POLICY, refusal_page, refused_action_page};
pub use list_filters::ListFilters;
pub use login::{LoginPage, LoginProvider, SetupPage};
pub use overview::{OverviewPage, has_trouble, overview_row, overview_row_id};
pub use release::{ReleasePage, ReleasePlace};
pub use release_contents::ReleasedCommits;
pub use rollout::RolloutPage;
pub use run::{
    LogSearchOutcome, LogSearchResults, RunPage, ShownLog, default_job, log_fragment,
    log_search_fragment,
};
pub use service::ServicePage;
pub use settings::{
    AuditSettingsPage, FinishedRemoval, GroupSettingsPage, RefusedWebhook, RetentionResult,
    RetentionSettingsPage, SecretPermission, SecretRow, SecretSettingsPage, SettingsFrame,
    SettingsLink, StoredFiles, TokenSettingsPage, UserSettingsPage, WebhookSettingsPage,
};

/// The script of all pages.
pub const SCRIPT: &str = concat!(
    include_str!("page_morph.js"),
    include_str!("action_buttons.js"),
    include_str!("countdown.js"),
    include_str!("shipway.js")
);

/// The script of pages with a log.
pub const LOG_VIEW_SCRIPT: &str = include_str!("log_view.js");

/// The script of the log of an instance.
pub const INSTANCE_LOG_SCRIPT: &str = include_str!("instance_log.js");

/// The script of the overview.
pub const OVERVIEW_SCRIPT: &str = include_str!("overview.js");

/// The style sheet of all pages and of the plots in them.
#[must_use]
pub fn style_sheet() -> String {
    let plots = shipway_analysis::plot::STYLE;
    let general = include_str!("shipway.css");
    format!("{general}{}{plots}", include_str!("delivery.css"))
}
