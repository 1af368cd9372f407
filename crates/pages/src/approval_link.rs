//! The page of a link that decides about a rollout.

use maud::{Markup, html};
use shipway_core::rollout::RolloutView;

use crate::{
    foreign_text::{cut_text, foreign_text},
    layout::{PageFrame, page},
};

/// The page of `/approval-link`.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalLinkPage<'a> {
    /// None where the link can't be used.
    pub rollout: Option<&'a RolloutView>,
    /// The user that the link decides for.
    pub user: &'a str,
    pub is_approval: bool,
    pub stage: ApprovalLinkStage<'a>,
}

/// What the page says.
#[derive(Clone, Copy, Debug)]
pub enum ApprovalLinkStage<'a> {
    /// Whether to decide.
    Question {
        link: &'a str,
        form_token: &'a str,
    },
    Done,
    /// Why the link can't be used.
    Refused(&'a str),
}

impl ApprovalLinkPage<'_> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let word = if self.is_approval {
            "Approve"
        } else {
            "Reject"
        };
        let content = html! {
            div.card.sign-in {
                @match self.stage {
                    ApprovalLinkStage::Question { link, form_token } => {
                        h1 { (word) "?" }
                        (self.subject())
                        form.fields method="post" action="/approval-link" {
                            input type="hidden" name="form_token" value=(form_token);
                            input type="hidden" name="link" value=(link);
                            label { "Reason (kept in the history)" input name="reason" maxlength="1000" autocomplete="off"; }
                            button.primary type="submit" { (word) " as " (self.user) }
                        }
                        p.dim { "Nothing is decided until you press the button. The link can be used once." }
                    },
                    ApprovalLinkStage::Done => {
                        h1 { @if self.is_approval { "Approved" } @else { "Rejected" } }
                        (self.subject())
                    },
                    ApprovalLinkStage::Refused(why) => {
                        h1 { "This link can't be used" }
                        p.trouble role="alert" { (foreign_text(why)) }
                        p { a href="/approvals" { "Approvals" } }
                    },
                }
            }
        };
        let frame = PageFrame {
            title: word,
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn subject(&self) -> Markup {
        let Some(rollout) = self.rollout else {
            return html! {};
        };
        let id = &rollout.id;
        html! {
            p {
                a href={ "/rollouts/" (id.service) "/" (id.number.0) } { (id) } ": "
                strong { (id.service) " " (rollout.release) " into " (rollout.environment) }
            }
            p { (foreign_text(&cut_text(&rollout.subject, 200))) " " code { (rollout.commit) } }
            @if let Some(subject) = rollout.gate.as_ref().and_then(|gate| gate.subject.as_ref()) {
                p.dim { "Plan " code { (subject) } }
            }
        }
    }
}
