//! Slack's incoming webhook: blocks for clients that render them, and `text` for the others.
//!
//! Slack rejects a message that exceeds its limits, so each part is shortened to them.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use shipway_core::outbox::{AttemptFailure, OutboxMessage};

use super::{
    Notification, NotificationSeverity, read_notification, read_settings,
    webhook_client::{WebhookClient, WebhookRequest, host, parse_address},
};
use crate::outbox::{OutboxDestination, permanent_failure};

/// Slack's limits: characters of a header, of a section's text, of a field; fields of a section.
const HEADER_CHARS_MAX: usize = 150;
const TEXT_CHARS_MAX: usize = 3000;
const FIELD_CHARS_MAX: usize = 2000;
const FIELDS_MAX: usize = 10;

/// Slack's incoming webhooks, also accepted by Mattermost, Rocket.Chat and Discord (`/slack`).
pub(super) struct SlackDestination(pub(super) WebhookClient);

#[derive(Deserialize)]
struct SlackSettings {
    url: String,
}

#[async_trait]
impl OutboxDestination for SlackDestination {
    fn kind(&self) -> &'static str {
        "slack"
    }

    async fn deliver(
        &self,
        settings: &Value,
        message: &OutboxMessage,
    ) -> Result<String, AttemptFailure> {
        let settings: SlackSettings = read_settings(settings)?;
        let address = parse_address(&settings.url).map_err(permanent_failure)?;
        let request = WebhookRequest {
            name: format!("the Slack webhook at {}", host(&address)),
            address,
            delivery: message.id.clone(),
            headers: Vec::new(),
            body: slack_message(&read_notification(message)?),
        };
        Ok(self.0.post(request).await?)
    }
}

/// The JSON of a message.
pub(super) fn slack_message(notification: &Notification) -> Vec<u8> {
    let mark = match notification.severity {
        NotificationSeverity::Info => "ℹ️",
        NotificationSeverity::Good => "✅",
        NotificationSeverity::Bad => "🔴",
    };
    let title = format!("{mark} {}", notification.title);
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": shorten(&title, HEADER_CHARS_MAX), "emoji": true }
    })];
    if !notification.text.is_empty() {
        blocks.push(json!({ "type": "section", "text": markdown_text(&escape(&notification.text), TEXT_CHARS_MAX) }));
    }
    if let Some(plot) = &notification.plot {
        // As code: monospaced, and without formatting.
        let line = format!("`{}`", escape(plot).replace('`', "'"));
        blocks.push(json!({ "type": "section", "text": markdown_text(&line, TEXT_CHARS_MAX) }));
    }
    let fields = message_fields(notification);
    if !fields.is_empty() {
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    let when = notification
        .at
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let context = match &notification.url {
        Some(url) => format!(
            "{when} · <{}|open in Shipway>",
            escape(url).replace('|', "%7C")
        ),
        None => when,
    };
    blocks
        .push(json!({ "type": "context", "elements": [markdown_text(&context, FIELD_CHARS_MAX)] }));
    let fallback = format!("{}: {}", escape(&title), escape(&notification.text));
    let mut fallback = fallback.trim_end_matches([':', ' ']).to_owned();
    if let Some(plot) = &notification.plot {
        fallback = format!("{fallback}\n{}", escape(plot));
    }
    let message = json!({ "text": shorten(&fallback, TEXT_CHARS_MAX), "blocks": blocks });
    serde_json::to_vec(&message).expect("a JSON value always serialises")
}

fn message_fields(notification: &Notification) -> Vec<Value> {
    let known = [
        (
            "service",
            notification.service.as_ref().map(ToString::to_string),
        ),
        (
            "environment",
            notification.environment.as_ref().map(ToString::to_string),
        ),
        (
            "release",
            notification.release.as_ref().map(ToString::to_string),
        ),
        (
            "rollout",
            notification.rollout.as_ref().map(ToString::to_string),
        ),
    ];
    let known = known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known
        .chain(notification.facts.iter().cloned())
        .take(FIELDS_MAX)
        .map(|(name, value)| {
            markdown_text(
                &format!("*{}*\n{}", escape(&name), escape(&value)),
                FIELD_CHARS_MAX,
            )
        })
        .collect()
}

fn markdown_text(text: &str, chars_max: usize) -> Value {
    json!({ "type": "mrkdwn", "text": shorten(text, chars_max) })
}

/// The three characters that Slack requires to be escaped; prevents forged mentions and links.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::rolled_back;

    fn message(notification: &Notification) -> Value {
        serde_json::from_slice(&slack_message(notification)).unwrap()
    }

    #[test]
    fn a_message_has_title_text_fields_and_a_link() {
        let message = message(&rolled_back());
        assert_eq!(
            message["text"],
            "🔴 shop #3 was rolled back in production: error-rate was 5.2% &lt;of 10%&gt;, at most 1% is allowed &amp; wanted.\nerror-rate: ▁▃▆█ 5.2% on #3, ▁▁▁▁ 0.1% on #2, limit 1%"
        );
        let blocks = &message["blocks"];
        assert_eq!(
            blocks[0]["text"]["text"],
            "🔴 shop #3 was rolled back in production"
        );
        assert_eq!(
            blocks[1]["text"]["text"],
            "error-rate was 5.2% &lt;of 10%&gt;, at most 1% is allowed &amp; wanted."
        );
        assert_eq!(
            blocks[2]["text"]["text"],
            "`error-rate: ▁▃▆█ 5.2% on #3, ▁▁▁▁ 0.1% on #2, limit 1%`"
        );
        let fields: Vec<&str> = blocks[3]["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["text"].as_str().unwrap())
            .collect();
        assert_eq!(
            fields,
            [
                "*service*\nshop",
                "*environment*\nproduction",
                "*release*\n#3",
                "*rollout*\nro7",
                "*back on*\n#2",
                "*took*\n84 ms"
            ]
        );
        assert_eq!(
            blocks[4]["elements"][0]["text"],
            "2026-03-04 05:06:07 UTC · <http://127.0.0.1:7878/rollouts/shop/ro7|open in Shipway>"
        );
    }

    #[test]
    fn nothing_exceeds_slacks_limits() {
        let mut long = rolled_back();
        long.title = "ü".repeat(400);
        long.text = "<".repeat(5000);
        long.facts = (0..40)
            .map(|n| (format!("fact {n}"), "x".repeat(3000)))
            .collect();
        let message = message(&long);
        let chars = |value: &Value| value.as_str().unwrap().chars().count();
        assert_eq!(chars(&message["blocks"][0]["text"]["text"]), 150);
        assert_eq!(chars(&message["blocks"][1]["text"]["text"]), 3000);
        let fields = message["blocks"][3]["fields"].as_array().unwrap();
        assert_eq!((fields.len(), chars(&fields[9]["text"])), (10, 2000));
    }

    #[test]
    fn a_bare_notification_is_a_message_too() {
        let bare = Notification {
            text: String::new(),
            service: None,
            environment: None,
            release: None,
            rollout: None,
            url: None,
            plot: None,
            facts: Vec::new(),
            severity: NotificationSeverity::Good,
            ..rolled_back()
        };
        let message = message(&bare);
        assert_eq!(
            message["blocks"].as_array().unwrap().len(),
            2,
            "no empty sections, which Slack refuses"
        );
        assert_eq!(message["text"], "✅ shop #3 was rolled back in production");
    }
}
