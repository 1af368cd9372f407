//! Buttons that send a request to the API, with a question before it that says exactly what will happen (`action_buttons.js`).
//!
//! Without a script they are not shown; the equivalent commands of `shipway` are always listed.

use maud::{Markup, html};
use serde_json::Value;

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
            div.buttons.needs-script { @for button in buttons { (action_button(button)) } }
            p.refusal role="alert" {}
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
    html! {
        button type="button" class=(class) data-post=(button.address) data-body=(button.body) data-effect=(button.effect) title=(button.effect)
            data-reason[button.reason == ReasonField::Optional] { (button.label) }
    }
}
