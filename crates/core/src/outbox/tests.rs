//! Channels: order, retries, dead letters, and every length of the log.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::aggregate::fold;

#[derive(Default)]
struct Channel {
    state: OutboxState,
    events: Vec<Event<OutboxEvent>>,
    now: Timestamp,
}

impl Channel {
    fn say(&mut self, input: OutboxInput) -> Result<usize, OutboxRejection> {
        let by = Actor::Shipway("test".to_owned());
        let events = OutboxAggregate::decide(&self.state, input, by, self.now)?;
        fold::<OutboxAggregate>(&mut self.state, &events);
        let count = events.len();
        self.events.extend(events);
        Ok(count)
    }

    fn enqueue(&mut self, id: &str) -> usize {
        let message = OutboxMessage {
            id: id.to_owned(),
            title: format!("title of {id}"),
            payload: json!({}),
        };
        let (address, message) = (Box::new(address("$HOOK")), Box::new(message));
        self.say(OutboxInput::Enqueue { address, message }).unwrap()
    }

    fn due(&self) -> Option<u64> {
        let effects = OutboxAggregate::pending(&self.state, self.now).effects;
        assert!(effects.len() <= 1, "only the oldest message is sent");
        effects
            .first()
            .map(|(_, OutboxEffect::Deliver { number, .. })| *number)
    }

    fn deliver(&mut self, number: u64) -> usize {
        let answer = "200 OK".to_owned();
        self.say(OutboxInput::Delivered { number, answer }).unwrap()
    }

    fn fail(&mut self, number: u64, is_retryable: bool) -> usize {
        let failure = AttemptFailure {
            why: "it\nrefused".to_owned(),
            is_retryable,
            retry_after: None,
        };
        self.say(OutboxInput::Failed { number, failure }).unwrap()
    }

    fn queued_ids(&self) -> Vec<&str> {
        let queue = self.state.queue.iter();
        queue.map(|it| it.message.id.as_str()).collect()
    }
}

fn address(url: &str) -> OutboxAddress {
    OutboxAddress::Configured {
        kind: "webhook".to_owned(),
        label: format!("webhook at {url}"),
        settings: json!({ "url": url }),
        service: "shop".parse().unwrap(),
        environment: "production".parse().ok(),
    }
}

#[test]
fn messages_are_sent_one_after_another_and_once() {
    let mut channel = Channel::default();
    assert_eq!(channel.enqueue("a"), 1);
    assert_eq!(channel.enqueue("b"), 1);
    assert_eq!(channel.enqueue("a"), 0, "queued again after a crash");
    assert_eq!(channel.due(), Some(1));
    assert_eq!(channel.deliver(2), 0, "it is not its turn");
    channel.deliver(1);
    assert_eq!(channel.deliver(1), 0, "reported twice");
    assert_eq!(channel.enqueue("a"), 0, "delivered already");
    assert_eq!(channel.due(), Some(2));
    channel.deliver(2);
    assert_eq!(channel.due(), None);
    assert!(!OutboxAggregate::pending(&channel.state, channel.now).live);
    let last = channel.state.last_delivery.unwrap();
    assert_eq!(
        (last.title.as_str(), last.answer.as_str()),
        ("title of b", "200 OK")
    );
}

#[test]
fn a_failed_attempt_is_retried_later_and_newer_messages_wait() {
    let mut channel = Channel::default();
    channel.enqueue("a");
    channel.enqueue("b");
    channel.fail(1, true);
    assert_eq!(channel.due(), None);
    let pending = OutboxAggregate::pending(&channel.state, channel.now);
    assert_eq!(pending.wake_at, Some(channel.now + Duration::from_secs(1)));
    assert!(pending.live);
    channel.now += Duration::from_secs(1);
    assert_eq!(channel.due(), Some(1));
    assert_eq!(channel.state.queue[0].why.as_deref(), Some("it refused"));
    for _ in 2..RetryPolicy::default().attempts {
        channel.fail(1, true);
    }
    assert!(channel.state.dead_letters.is_empty());
    channel.fail(1, true);
    assert_eq!(channel.state.dead_letters[&1].attempts, 99);
    assert_eq!(channel.due(), Some(2), "the next one is sent at once");
}

#[test]
fn what_is_refused_is_a_dead_letter_that_can_be_sent_again_or_removed() {
    let mut channel = Channel::default();
    for id in ["a", "b", "c"] {
        channel.enqueue(id);
    }
    channel.fail(1, false);
    channel.fail(2, false);
    let missing = channel.say(OutboxInput::Resend { number: Some(3) });
    assert_eq!(missing, Err(OutboxRejection::NoDeadLetter { number: 3 }));
    channel
        .say(OutboxInput::Resend { number: Some(1) })
        .unwrap();
    assert_eq!(channel.queued_ids(), ["c", "a"], "it is the newest");
    channel.say(OutboxInput::Remove { number: None }).unwrap();
    assert!(channel.state.dead_letters.is_empty());
    channel.deliver(3);
    assert_eq!(channel.due(), Some(4), "with a number of its own");
}

#[test]
fn a_receiver_that_is_down_for_long_has_limits() {
    let mut channel = Channel::default();
    for index in 0..QUEUED_MAX + DEAD_LETTERS_MAX + 5 {
        channel.enqueue(&format!("m{index}"));
    }
    assert_eq!(channel.state.queue.len(), QUEUED_MAX);
    assert_eq!(channel.state.dead_letters.len(), DEAD_LETTERS_MAX);
    assert_eq!(channel.state.dead_letters.keys().next(), Some(&6));
    assert_eq!(channel.state.remembered_ids.len(), REMEMBERED_IDS_MAX);
}

#[test]
fn rows_show_the_channel_and_its_dead_letters() {
    let mut channel = Channel::default();
    channel.enqueue("a");
    channel.fail(1, false);
    let rows = OutboxAggregate::rows(&channel.state, &channel.events);
    let shown: ChannelView = serde_json::from_value(rows[0].doc.clone()).unwrap();
    assert_eq!(
        (shown.label.as_str(), shown.dead_letters),
        ("webhook at $HOOK", 1)
    );
    assert_eq!(shown.id, ChannelId::for_address(&address("$HOOK")));
    let letter: DeadLetterView = serde_json::from_value(rows[1].doc.clone()).unwrap();
    assert_eq!((letter.number, letter.title.as_str()), (1, "title of a"));
    channel.events.clear();
    channel.say(OutboxInput::Resend { number: None }).unwrap();
    let rows = OutboxAggregate::rows(&channel.state, &channel.events);
    assert!(rows[1].doc.is_null());
}

#[test]
fn ids_of_channels_differ_by_address_and_are_read_again() {
    let (one, other) = (address("$A"), address("$B"));
    let id = ChannelId::for_address(&one);
    assert_ne!(id, ChannelId::for_address(&other));
    assert!(id.as_str().starts_with("shop.production."));
    let owner = ("shop".parse().unwrap(), "production".parse().ok());
    assert_eq!(id.owner(), Some(owner));
    assert_eq!("chat".parse::<ChannelId>().unwrap().owner(), None);
    assert_eq!(ChannelId::from_stream(&id.stream()), Some(id));
    for bad in ["", "a/b", "a b", "ü", &"x".repeat(161)] {
        assert!(bad.parse::<ChannelId>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn every_message_is_somewhere_at_every_length_of_the_log(steps in prop::collection::vec(0u8..6, 1..60)) {
        let mut channel = Channel::default();
        let mut count = 0;
        for step in steps {
            channel.now += Duration::from_secs(1_000);
            let due = channel.due();
            match (step, due) {
                (0 | 1, _) => { count += 1; channel.enqueue(&format!("m{count}")); }
                (2, Some(number)) => { channel.deliver(number); }
                (3, Some(number)) => { channel.fail(number, true); }
                (4, Some(number)) => { channel.fail(number, false); }
                (5, _) => { channel.say(OutboxInput::Resend { number: None }).unwrap(); }
                _ => {}
            }
        }
        let delivered = channel.events.iter().filter(|it| matches!(it.body, OutboxEvent::MessageDelivered { .. })).count();
        prop_assert_eq!(delivered + channel.state.queue.len() + channel.state.dead_letters.len(), count);
        let mut resumed = OutboxState::default();
        for event in &channel.events {
            let text = serde_json::to_string(event).unwrap();
            OutboxAggregate::apply(&mut resumed, &serde_json::from_str(&text).unwrap());
            let numbers: Vec<u64> = resumed.queue.iter().map(|it| it.number).collect();
            prop_assert!(numbers.is_sorted(), "{:?}", numbers);
        }
        prop_assert_eq!(resumed, channel.state);
    }
}
