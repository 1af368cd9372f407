//! What the engine relies on, whichever store it is given. Each store's test file says how its log is opened, and runs the same
//! tests:
//!
//! ```text
//! conformance!(MyPlace::new());
//! ```
//!
//! A test opens its log as often as it likes; whatever was acknowledged by one opening is there for the next.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde_json::json;
use shipway_core::aggregate::ViewRow;
use shipway_engine::{Append, Recorded, Store, Subscription};

pub mod appending;
pub mod caching;
pub mod projecting;
pub mod subscribing;

/// Where one log is kept. Empty at first.
pub trait Place {
    /// Opens the log, beside those that have it open already.
    fn open(&self) -> Arc<dyn Store>;
}

/// Names every conformance test once, for the place given.
#[macro_export]
macro_rules! conformance {
    ($place:expr) => {
        $crate::conformance!(@each $place, appending:
            what_was_appended_is_read_in_order
            reading_begins_after_the_version_asked_for
            a_stream_that_nobody_wrote_is_empty
            texts_come_back_byte_by_byte
            one_append_may_hold_many_and_large_events
            an_append_at_another_version_is_refused_and_changes_nothing
            a_refused_append_leaves_no_stream_behind
            a_refused_append_does_not_hurt_those_beside_it
            of_many_appends_at_one_version_exactly_one_wins
            many_streams_appended_to_at_once_lose_nothing
            two_openings_that_race_never_both_win
            an_opening_learns_what_another_has_appended
            what_was_acknowledged_survives_a_reopening
        );
        $crate::conformance!(@each $place, subscribing:
            a_subscription_tells_what_was_there_and_then_what_comes
            a_subscription_goes_on_where_it_was_left
            a_subscription_survives_a_reopening_by_its_position
            a_subscription_from_the_end_waits_for_what_comes
            a_slow_reader_misses_nothing_and_holds_nobody
            everybody_is_told_the_same_in_the_same_order
            the_last_position_is_that_of_the_last_event
        );
        $crate::conformance!(@each $place, projecting:
            a_projection_has_the_rows_and_the_checkpoint_of_its_last_save
            a_projection_that_begins_anew_loses_its_own_rows_alone
        );
        $crate::conformance!(@each $place, caching:
            the_newest_snapshot_is_given
            a_refused_append_stores_no_snapshot
            snapshots_can_be_forgotten_and_events_stay
            streams_can_be_forgotten_and_no_position_is_given_twice
            live_streams_are_those_whose_last_append_said_so
            streams_are_listed_by_kind_in_the_order_they_began
            a_row_is_replaced_by_its_key
            a_row_with_a_null_document_is_gone
            a_refused_append_changes_no_row
            rows_are_listed_with_the_newest_change_first
            rows_are_found_by_service_and_by_being_live
            a_reader_gets_full_pages_of_the_rows_that_it_may_see
            a_list_of_what_exists_loses_no_entry_that_changes_meanwhile
            a_filtered_list_has_full_pages_and_misses_no_row
            rows_are_found_by_state_branch_environment_and_person
            a_row_is_found_by_what_it_is_now_and_not_by_what_it_was
            rows_are_found_by_the_time_of_their_last_change
            pages_hold_each_row_once_wherever_they_are_cut
            rows_of_one_append_are_listed_with_its_last_one_first
            a_row_that_goes_between_two_pages_hides_no_other
            rows_of_one_append_are_never_cut_in_two
            replaced_rows_keep_their_order_before_what_changes_next
            caches_survive_a_reopening
        );
    };
    (@each $place:expr, $module:ident: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                conformance::$module::$name(&$place).await;
            }
        )*
    };
}

/// Facts with nothing beside them.
pub fn facts(stream: &str, expected: u64, events: &[&str]) -> Append {
    Append {
        stream: stream.to_owned(),
        expected,
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        rows: Vec::new(),
        snapshot: None,
        live: false,
    }
}

/// One fact that changes these rows.
pub fn changing(stream: &str, expected: u64, rows: Vec<ViewRow>) -> Append {
    Append {
        rows,
        ..facts(stream, expected, &["{}"])
    }
}

pub fn row(kind: &str, key: &str, service: &str, live: bool, value: u64) -> ViewRow {
    ViewRow {
        kind: kind.to_owned(),
        key: key.to_owned(),
        service: service.to_owned(),
        live,
        doc: json!({ "value": value }),
    }
}

/// What must come, and does so soon or never.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("it comes within seconds")
}

/// The next events of a subscription.
pub async fn next(subscription: &mut Subscription, count: usize) -> Vec<Recorded> {
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let event = soon(subscription.next())
            .await
            .expect("a subscription goes on while its store is open");
        events.push(event.expect("the log can be read"));
    }
    events
}
