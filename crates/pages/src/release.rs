//! A release: its contents, its environments and its history, with the buttons that deploy it or roll back to it.

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::json;
use shipway_core::{
    configuration_changes::ConfigurationChange,
    ids::{EnvironmentName, ReleaseNumber},
    release::Release,
    rollout::{RolloutOutcome, RolloutStatus, RolloutView},
    service::RejectedRelease,
};

use crate::{
    action_button::{ActionButton, ButtonTone, ReasonField, action_bar, action_button},
    delivery_lists::{person_cell, release_link, rollout_row},
    foreign_text::foreign_text,
    format::{query_text, relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
    release_contents::{ReleasedCommits, commit_list, configuration_table, size_text},
};

/// The page of `/services/{service}/releases/{number}`.
#[derive(Clone, Debug)]
pub struct ReleasePage {
    pub release: Release,
    /// The size of the artifact in bytes; none when it is not stored here.
    pub artifact_size: Option<u64>,
    pub is_artifact_removed: bool,
    /// Its name at the run that has stored it.
    pub artifact_name: Option<String>,
    /// Set when no environment accepts it.
    pub rejected: Option<RejectedRelease>,
    /// The release before.
    pub previous: Option<ReleaseNumber>,
    /// Since the release before.
    pub commits: ReleasedCommits,
    /// Since the release before.
    pub changes: Vec<ConfigurationChange>,
    /// In the order of promotion.
    pub environments: Vec<ReleasePlace>,
    /// Its rollouts, the newest first.
    pub rollouts: Vec<RolloutView>,
    pub now: Timestamp,
}

/// An environment that a release can go to.
#[derive(Clone, Debug)]
pub struct ReleasePlace {
    pub environment: EnvironmentName,
    /// The release that serves there.
    pub stable: Option<ReleaseNumber>,
    /// Since when that one serves.
    pub since: Option<Timestamp>,
    /// The strategy that this release has there; none if it doesn't name the environment.
    pub strategy: Option<String>,
    /// The release that it replaced there, or would replace.
    pub replaced: Option<ReleaseNumber>,
    /// Since `replaced`; none where these are the commits since the release before.
    pub commits: Option<ReleasedCommits>,
    /// How it was taken out there before. A second deployment needs `force`.
    pub taken_out: Option<RolloutOutcome>,
}

impl ReleasePage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let release = &self.release;
        let (service, number, now) = (&release.service, release.number, self.now);
        let content = html! {
            p.dim { a href={ "/services/" (service) } { (service) } " / " a href={ "/releases?service=" (service) } { "releases" } }
            h1 { (service) " " (number) }
            p.lead { (foreign_text(&release.commit.subject)) }
            (self.rejection())
            section.card { h2 { "Contents" } (self.facts()) }
            section.card { h2 { "Where it serves" } (self.environment_table()) }
            section.card {
                h2 { "Commits" @if let Some(previous) = self.previous { " since " (release_link(service, previous.0)) } }
                (commit_list(&self.commits))
                @for place in &self.environments { (self.environment_commits(place)) }
            }
            @if let Some(previous) = self.previous {
                section.card { h2 { "Configuration since " (release_link(service, previous.0)) } (configuration_table(&self.changes)) }
            }
            section.card {
                h2 { "History" }
                @if self.rollouts.is_empty() { p.dim { "It was never rolled out." } }
                @else { table.cards.list { tbody { @for rollout in &self.rollouts { (rollout_row(rollout, now)) } } } }
            }
        };
        let frame = PageFrame {
            title: &format!("{service} {number}"),
            section: Some(NavigationSection::Releases),
            events: &format!("service={service}"),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    /// Who rejected it and why, and the button that rejects it or takes that back.
    fn rejection(&self) -> Markup {
        let (service, number) = (&self.release.service, self.release.number);
        let address = |action| format!("/api/v1/services/{service}/releases/{}/{action}", number.0);
        let command = format!("shipway reject {service} --release {}", number.0);
        let button = match &self.rejected {
            None => ActionButton {
                label: "Reject this release",
                address: address("reject"),
                body: json!({}),
                effect: format!(
                    "No environment accepts {number} any more, also not by force. Its rollouts in progress are rolled back. What it already serves stays. It needs a reason."
                ),
                command: format!("{command} --reason …"),
                reason: ReasonField::Optional,
                tone: ButtonTone::Plain,
            },
            Some(_) => ActionButton {
                label: "Accept it again",
                address: address("accept"),
                body: json!({}),
                effect: format!("{number} can be deployed again. Nothing is deployed now."),
                command: format!("{command} --undo"),
                reason: ReasonField::Optional,
                tone: ButtonTone::Plain,
            },
        };
        html! {
            @if let Some(rejected) = &self.rejected {
                section.card {
                    h2 { "Rejected" }
                    p.trouble { (status_badge("rejected")) " No environment accepts it: " (foreign_text(&rejected.reason)) }
                    p.dim { "By " (person_cell(&rejected.by)) ", " (relative_time(rejected.at, self.now)) }
                }
            }
            (action_bar(&[button]))
        }
    }

    fn facts(&self) -> Markup {
        let release = &self.release;
        html! {
            dl.facts {
                dt { "Commit" } dd { code { (release.commit.id) } }
                dt { "Author" } dd { (foreign_text(&release.commit.author)) }
                dt { "Branch" } dd { (foreign_text(&release.config.branch)) }
                dt { "Made" } dd {
                    (relative_time(release.created_at, self.now))
                    @if let Some(by) = &release.by { " by " (person_cell(&by.to_string())) }
                    @if let Some(run) = release.run { ", built by run " a href={ "/runs/" (release.service) "/" (run.0) } { (run) } }
                    @else { ", from the commit's own files" }
                }
                dt { "Artifact" } dd {
                    code { (release.artifact) }
                    @if let Some(size) = self.artifact_size { " · " (size_text(size)) }
                    @if let (Some(name), Some(run), false) = (&self.artifact_name, release.run, self.is_artifact_removed) {
                        " · " a href={ "/api/v1/runs/" (release.service) "/" (run.0) "/artifacts/" (query_text(name)) } download={ (name) ".tar" } { "Download" }
                    }
                    @if self.is_artifact_removed { " " (status_badge("removed")) " It can't be deployed any more: retention removed its artifact." }
                }
                dt { "Configuration" } dd { code { (release.config.digest()) } }
            }
        }
    }

    /// The commits that it brought to an environment, or would bring.
    fn environment_commits(&self, place: &ReleasePlace) -> Markup {
        let (service, number) = (&self.release.service, self.release.number);
        html! {
            @if let (Some(replaced), Some(commits)) = (place.replaced, &place.commits) {
                details id={ "commits-" (place.environment) } {
                    summary { "In " (place.environment) ", since " (replaced) ": " (count_text(commits)) }
                    (commit_list(commits))
                    p { a href={ "/services/" (service) "/compare?from=" (replaced.0) "&to=" (number.0) } { "Compare " (replaced) " and " (number) } }
                }
            }
        }
    }

    fn environment_table(&self) -> Markup {
        let service = &self.release.service;
        html! {
            table.cards { tbody { @for place in &self.environments { tr {
                th scope="row" { a href={ "/services/" (service) "/environments/" (place.environment) } { (place.environment) } }
                td { (self.serving(place)) }
                td {
                    @if let Some(button) = self.button(place) { div.actions { (action_button(&button)) code { (button.command) } } }
                    @for rollout in self.waiting(place) { @let button = reject_button(rollout); div.actions { (action_button(&button)) code { (button.command) } } }
                }
            } } } }
        }
    }

    fn serving(&self, place: &ReleasePlace) -> Markup {
        let (service, number) = (&self.release.service, self.release.number);
        html! {
            @match place.stable {
                Some(stable) if stable == number => {
                    (status_badge("serves")) @if let Some(since) = place.since { " since " (relative_time(since, self.now)) }
                },
                Some(stable) => {
                    (release_link(service, stable.0)) " serves. "
                    a href={ "/services/" (service) "/compare?from=" (stable.0) "&to=" (number.0) } { "Compare" }
                },
                None => span.dim { "nothing is deployed" },
            }
        }
    }

    /// Rollouts of this release that wait for an approval in the environment.
    fn waiting(&self, place: &ReleasePlace) -> impl Iterator<Item = &RolloutView> {
        let rollouts = self.rollouts.iter();
        rollouts.filter(|rollout| {
            rollout.status == RolloutStatus::Waiting && rollout.environment == place.environment
        })
    }

    /// Deploys it, or returns to it; none where it serves already or can't be deployed.
    fn button(&self, place: &ReleasePlace) -> Option<ActionButton> {
        let (service, number) = (&self.release.service, self.release.number);
        let environment = &place.environment;
        let strategy = place.strategy.as_ref()?;
        if self.is_artifact_removed || self.rejected.is_some() || place.stable == Some(number) {
            return None;
        }
        let is_rollback = place.stable.is_some_and(|stable| stable > number);
        let (mut body, mut flag, mut before) = (
            json!({ "environment": environment, "release": number.0 }),
            "",
            String::new(),
        );
        if let Some(outcome) = place.taken_out {
            body["force"] = json!(true);
            flag = " --force";
            before = format!(" It was {outcome} there before.");
        }
        if let Some(stable) = place.stable.filter(|_| is_rollback) {
            return Some(ActionButton {
                label: "Roll back to this release",
                address: format!("/api/v1/services/{service}/rollbacks"),
                body,
                effect: format!(
                    "{number} replaces {stable} in {environment}.{before} Automatic promotion into {environment} then stops until a person resumes it."
                ),
                command: format!(
                    "shipway rollback {service} --env {environment} --release {}{flag}",
                    number.0
                ),
                reason: ReasonField::Optional,
                tone: ButtonTone::Strong,
            });
        }
        let replaced = place
            .stable
            .map(|stable| format!(" and replaces {stable}"))
            .unwrap_or_default();
        Some(ActionButton {
            label: match place.taken_out {
                Some(_) => "Deploy again",
                None => "Deploy",
            },
            address: format!("/api/v1/services/{service}/deploys"),
            body,
            effect: format!(
                "A rollout of {number} into {environment} starts{replaced}, by the strategy {strategy}.{before} Other environments stay as they are."
            ),
            command: format!(
                "shipway deploy {service} --env {environment} --release {}{flag}",
                number.0
            ),
            reason: ReasonField::Optional,
            tone: ButtonTone::Strong,
        })
    }
}

/// `3 commits`
fn count_text(commits: &ReleasedCommits) -> String {
    match (&commits.problem, commits.commits.len(), commits.is_cut) {
        (Some(_), _, _) => "unknown".to_owned(),
        (None, 1, false) => "1 commit".to_owned(),
        (None, count, false) => format!("{count} commits"),
        (None, count, true) => format!("more than {count} commits"),
    }
}

fn reject_button(rollout: &RolloutView) -> ActionButton {
    let id = &rollout.id;
    let seen = rollout.gate.as_ref().and_then(|gate| gate.binding.as_ref());
    ActionButton {
        label: "Reject",
        address: format!("/api/v1/rollouts/{}/{}/reject", id.service, id.number.0),
        body: match seen {
            Some(seen) => json!({ "seen": seen }),
            None => json!({}),
        },
        effect: format!(
            "The rollout {id} ends as rejected, and {} does not go into {}. It can be deployed again later.",
            rollout.release, rollout.environment
        ),
        command: format!("shipway reject {id}"),
        reason: ReasonField::Optional,
        tone: ButtonTone::Plain,
    }
}
