//! Buttons that send a request to the API, with a question before it that says exactly what will happen (`action_buttons.js`).
//!
//! Without a script a button is the form that it is in: it shows what will happen, and `/actions` sends the request of its fields.

use maud::{Markup, html};
use serde_json::Value;

use crate::account_frame::csrf_mark;

/// A button and the request that it sends.
pub(crate) struct ActionButton {
    pub(crate) label: &'static str,
    /// The address that it posts to.
    pub(crate) address: String,
    pub(crate) body: Value,
    /// What will happen, as full sentences; asked before the request is sent.
    pub(crate) effect: String,
    /// The same for the command line.
    pub(crate) command: String,
    pub(crate) reason: ReasonField,
    pub(crate) tone: ButtonTone,
}

/// Whether the question has a field for a reason, which is sent as `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReasonField {
    Absent,
    Optional,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ButtonTone {
    Plain,
    /// It changes what users get at once.
    Strong,
}

/// The buttons of a page and their commands; nothing when none applies.
pub(crate) fn action_bar(buttons: &[ActionButton]) -> Markup {
    html! { @if !buttons.is_empty() {
        section.actions id="actions" aria-label="Actions" {
            div.buttons { @for button in buttons { (action_button(button)) } }
            details.commands id="commands" {
                summary { "The same on the command line" }
                dl.steer { @for button in buttons { dt { code { (button.command) } } dd { (button.effect) } } }
            }
        }
    } }
}

/// One button; for places that show the command themselves.
pub(crate) fn action_button(button: &ActionButton) -> Markup {
    let class = match button.tone {
        ButtonTone::Plain => "act",
        ButtonTone::Strong => "act strong",
    };
    let has_reason = button.reason == ReasonField::Optional;
    html! {
        form.action-form method="post" action="/actions" {
            (hidden_fields(&button.address, Some(&button.body)))
            p.without-script { (button.effect) }
            @if has_reason {
                label.without-script { "Reason (shown in the history) " input name="reason" maxlength="500" autocomplete="off"; }
            }
            button type="submit" class=(class) data-post=(button.address) data-body=(button.body) data-effect=(button.effect) title=(button.effect)
                data-reason[has_reason] { (button.label) }
        }
    }
}

/// The button that resumes an environment or a rollout, without a question.
pub(crate) fn resume_button(address: &str, effect: &str) -> Markup {
    html! {
        form.action-form method="post" action="/actions" {
            (hidden_fields(address, None))
            button type="submit" data-post=(address) title=(effect) { "Resume" }
        }
    }
}

fn hidden_fields(address: &str, body: Option<&Value>) -> Markup {
    html! {
        input type="hidden" name="address" value=(address);
        @if let Some(body) = body { input type="hidden" name="body" value=(body); }
        (csrf_mark())
    }
}
