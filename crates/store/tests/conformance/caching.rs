//! Snapshots, live streams and rows: what changes with the facts, and can be made again from them.

use jiff::Timestamp;
use shipway_core::aggregate::ViewRow;
use shipway_engine::{
    Append, RowFacets, RowFilter, RowQuery, RowScope, Snapshot, Store, row_order,
};

use futures_util::StreamExt;

use super::{Place, changing, facts, row};

fn with_snapshot(expected: u64, state: &str) -> Append {
    Append {
        snapshot: Some(state.to_owned()),
        ..facts("run/1", expected, &["{}"])
    }
}

fn live(stream: &str, expected: u64, live: bool) -> Append {
    Append {
        live,
        ..facts(stream, expected, &["{}"])
    }
}

pub async fn the_newest_snapshot_is_given(place: &impl Place) {
    let store = place.open();
    store.append(facts("run/1", 0, &["{}"])).await.unwrap();
    assert_eq!(store.snapshot("run/1").await.unwrap(), None);
    for version in 1..4 {
        let state = format!("{{\"at\":{version}}}");
        store.append(with_snapshot(version, &state)).await.unwrap();
        let newest = Snapshot {
            version: version + 1,
            state,
        };
        assert_eq!(store.snapshot("run/1").await.unwrap(), Some(newest));
    }
    store.append(facts("run/1", 4, &["{}"])).await.unwrap();
    let kept = store.snapshot("run/1").await.unwrap().unwrap();
    assert_eq!(kept.version, 4);
}

pub async fn a_refused_append_stores_no_snapshot(place: &impl Place) {
    let store = place.open();
    store.append(with_snapshot(0, "\"good\"")).await.unwrap();
    assert!(store.append(with_snapshot(0, "\"bad\"")).await.is_err());
    let kept = store.snapshot("run/1").await.unwrap().unwrap();
    assert_eq!((kept.version, kept.state.as_str()), (1, "\"good\""));
}

pub async fn snapshots_can_be_forgotten_and_events_stay(place: &impl Place) {
    let store = place.open();
    store.append(with_snapshot(0, "{}")).await.unwrap();
    store.forget_snapshots().await.unwrap();
    assert_eq!(store.snapshot("run/1").await.unwrap(), None);
    assert_eq!(store.read("run/1", 0).await.unwrap().len(), 1);
    store.append(with_snapshot(1, "{}")).await.unwrap();
    assert_eq!(store.snapshot("run/1").await.unwrap().unwrap().version, 2);
}

pub async fn live_streams_are_those_whose_last_append_said_so(place: &impl Place) {
    let store = place.open();
    for stream in ["run/1", "run/2", "rollout/1"] {
        store.append(live(stream, 0, true)).await.unwrap();
    }
    store.append(live("run/3", 0, false)).await.unwrap();
    assert_eq!(store.live("run").await.unwrap(), ["run/1", "run/2"]);
    store.append(live("run/1", 1, false)).await.unwrap();
    store.append(live("run/3", 1, true)).await.unwrap();
    assert_eq!(store.live("run").await.unwrap(), ["run/2", "run/3"]);
    assert!(
        store.append(live("run/2", 0, false)).await.is_err(),
        "a conflict"
    );
    assert_eq!(store.live("run").await.unwrap(), ["run/2", "run/3"]);
}

pub async fn streams_are_listed_by_kind_in_the_order_they_began(place: &impl Place) {
    let store = place.open();
    for stream in ["run/b", "run/a", "rollout/1", "runner/1", "run", "run/c"] {
        store.append(facts(stream, 0, &["{}"])).await.unwrap();
    }
    store.append(facts("run/b", 1, &["{}"])).await.unwrap();
    let runs = store.streams("run").await.unwrap();
    assert_eq!(runs, ["run/b", "run/a", "run", "run/c"]);
    assert_eq!(store.streams("runner").await.unwrap(), ["runner/1"]);
    assert!(store.streams("ru").await.unwrap().is_empty());
}

pub async fn a_row_is_replaced_by_its_key(place: &impl Place) {
    let store = place.open();
    assert_eq!(store.row("run", "1").await.unwrap(), None);
    let first = row("run", "1", "shop", true, 1);
    let second = row("run", "1", "till", false, 2);
    for (version, row) in [first, second.clone()].into_iter().enumerate() {
        let append = changing("run/1", version as u64, vec![row]);
        store.append(append).await.unwrap();
    }
    assert_eq!(store.row("run", "1").await.unwrap(), Some(second.clone()));
    assert_eq!(store.row("rollout", "1").await.unwrap(), None);
    assert_eq!(store.all_rows("run").await.unwrap(), [second]);
}

pub async fn a_row_with_a_null_document_is_gone(place: &impl Place) {
    let store = place.open();
    for key in ["1", "2"] {
        let append = changing(
            &format!("run/{key}"),
            0,
            vec![row("run", key, "shop", true, 1)],
        );
        store.append(append).await.unwrap();
    }
    let gone = vec![ViewRow::deleted("run", "1")];
    store.append(changing("run/1", 1, gone)).await.unwrap();
    assert_eq!(store.row("run", "1").await.unwrap(), None);
    assert_eq!(store.all_rows("run").await.unwrap().len(), 1);
    let gone = vec![ViewRow::deleted("run", "3")];
    store.replace_rows("run", gone).await.unwrap();
    assert_eq!(store.all_rows("run").await.unwrap(), []);
}

pub async fn a_refused_append_changes_no_row(place: &impl Place) {
    let store = place.open();
    let good = row("run", "1", "shop", true, 1);
    let append = changing("run/1", 0, vec![good.clone()]);
    store.append(append).await.unwrap();
    let bad = vec![row("run", "1", "", false, 2), row("run", "2", "", false, 2)];
    assert!(store.append(changing("run/1", 0, bad)).await.is_err());
    assert_eq!(store.all_rows("run").await.unwrap(), [good]);
}

pub async fn rows_are_listed_with_the_newest_change_first(place: &impl Place) {
    let store = place.open();
    let changes = ["a", "b", "c", "b"];
    for (version, key) in changes.into_iter().enumerate() {
        let row = row("run", key, "shop", true, version as u64);
        let append = changing("run/1", version as u64, vec![row]);
        store.append(append).await.unwrap();
    }
    assert_eq!(keys(&store.all_rows("run").await.unwrap()), ["b", "c", "a"]);
}

pub async fn rows_are_found_by_service_and_by_being_live(place: &impl Place) {
    let store = place.open();
    let rows = vec![
        row("run", "1", "shop", false, 0),
        row("run", "2", "till", true, 0),
        row("run", "3", "shop", true, 0),
        row("rollout", "4", "shop", true, 0),
    ];
    store.append(changing("run/1", 0, rows)).await.unwrap();
    let found = async |service, scope| {
        let query = RowQuery {
            service,
            scope,
            ..RowQuery::new("run")
        };
        let page = store.rows(query).await.unwrap();
        assert_eq!(page.next, None, "all are on one page");
        let mut keys = keys(&page.rows);
        keys.sort();
        keys
    };
    assert_eq!(found(None, RowScope::All).await, ["1", "2", "3"]);
    assert_eq!(found(None, RowScope::Live).await, ["2", "3"]);
    assert_eq!(found(Some("shop"), RowScope::All).await, ["1", "3"]);
    assert_eq!(found(Some("shop"), RowScope::Live).await, ["3"]);
    assert!(found(Some("sho"), RowScope::All).await.is_empty());
}

pub async fn a_reader_gets_full_pages_of_the_rows_that_it_may_see(place: &impl Place) {
    let store = place.open();
    let services = ["shop", "till", "cart"];
    let rows =
        (0..30).map(|number: usize| row("run", &number.to_string(), services[number % 3], true, 0));
    store.replace_rows("run", rows.collect()).await.unwrap();
    let found = async |names: &[&str], limit| {
        let visible = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut query = RowQuery {
            visible: Some(&visible),
            limit,
            ..RowQuery::new("run")
        };
        let mut found = Vec::new();
        loop {
            let page = store.rows(query).await.unwrap();
            assert!(page.rows.len() == limit as usize || page.next.is_none());
            found.extend(keys(&page.rows));
            query.cursor = page.next;
            if query.cursor.is_none() {
                return found;
            }
        }
    };
    let of = |rests: &[usize]| -> Vec<String> {
        let numbers = (0..30).rev().filter(|number| rests.contains(&(number % 3)));
        numbers.map(|number| number.to_string()).collect()
    };
    for limit in [1, 3, 10, 50] {
        assert_eq!(found(&["shop"], limit).await, of(&[0]));
        assert_eq!(found(&["shop", "cart"], limit).await, of(&[0, 2]));
        assert!(found(&[], limit).await.is_empty());
        assert!(found(&["other"], limit).await.is_empty());
    }
}

pub async fn a_list_of_what_exists_loses_no_entry_that_changes_meanwhile(place: &impl Place) {
    let store = place.open();
    let named = |name: &str, value| row("environment", name, "shop", false, value);
    let created = ["1", "2", "3"].map(|name| named(name, 0)).to_vec();
    store
        .append(changing("service/shop", 0, created))
        .await
        .unwrap();
    let mut query = RowQuery {
        limit: 1,
        ..RowQuery::new("environment")
    };
    let mut found = Vec::new();
    for version in 1.. {
        let page = store.rows(query).await.unwrap();
        found.extend(keys(&page.rows));
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
        let changes = changing("service/shop", version, vec![named("1", version)]);
        store.append(changes).await.unwrap();
    }
    assert_eq!(found, ["3", "2", "1"]);
    let changed = store.row("environment", "1").await.unwrap().unwrap();
    assert_eq!(changed.doc["value"], 2);
}

pub async fn a_filtered_list_has_full_pages_and_misses_no_row(place: &impl Place) {
    let store = place.open();
    // Every third rollout is in production.
    let rows = (0..100).map(|number| ViewRow {
        doc: serde_json::json!({
            "number": number,
            "environment": if number % 3 == 0 { "production" } else { "staging" },
            "commit": { "id": format!("{}abc{number}", number % 3) },
        }),
        ..row("rollout", &number.to_string(), "shop", false, 0)
    });
    store.replace_rows("rollout", rows.collect()).await.unwrap();
    let expected: Vec<String> = (0..100)
        .rev()
        .filter(|number| number % 3 == 0)
        .map(|number| number.to_string())
        .collect();
    for limit in [1, 7, 33, 34, 35, 200] {
        for filter in [
            RowFilter::Equals {
                path: "environment",
                value: "production",
            },
            RowFilter::StartsWith {
                path: "commit.id",
                prefix: "0ab",
            },
        ] {
            let mut query = RowQuery {
                filter: Some(filter),
                limit,
                ..RowQuery::new("rollout")
            };
            let mut found = Vec::new();
            loop {
                let page = store.rows(query).await.unwrap();
                let is_full = page.rows.len() == limit as usize;
                assert!(is_full || page.next.is_none(), "{limit}");
                assert!(
                    !page.rows.is_empty(),
                    "no page is empty but of an empty list"
                );
                found.extend(keys(&page.rows));
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{limit}");
        }
    }
    let number = RowQuery {
        filter: Some(RowFilter::Equals {
            path: "number",
            value: "7",
        }),
        ..RowQuery::new("rollout")
    };
    assert_eq!(keys(&store.rows_of_all_pages(number).await.unwrap()), ["7"]);
}

pub async fn rows_are_found_by_state_branch_environment_and_person(place: &impl Place) {
    let store = place.open();
    let run = |number: u32, state: &str, branch: &str, by: &str| ViewRow {
        doc: serde_json::json!({ "status": state, "branch": branch, "by": by }),
        ..row("run", &number.to_string(), "shop", false, 0)
    };
    let rows = vec![
        run(1, "success", "main", "Ada <ada@example.com>"),
        run(2, "failure", "main", "bob"),
        run(3, "failure", "topic", "ADA"),
        run(4, "success", "main", "\u{202e}<script>"),
    ];
    store.replace_rows("run", rows).await.unwrap();
    let none = RowFacets::default();
    for (facets, expected) in [
        (none, vec!["4", "3", "2", "1"]),
        (
            RowFacets {
                state: Some("failure"),
                ..none
            },
            vec!["3", "2"],
        ),
        (
            RowFacets {
                branch: Some("main"),
                ..none
            },
            vec!["4", "2", "1"],
        ),
        (
            RowFacets {
                person: Some("Ada"),
                ..none
            },
            vec!["3", "1"],
        ),
        (
            RowFacets {
                person: Some("ada"),
                state: Some("failure"),
                ..none
            },
            vec!["3"],
        ),
        (
            RowFacets {
                person: Some("bob"),
                branch: Some("main"),
                state: Some("failure"),
                ..none
            },
            vec!["2"],
        ),
        (
            RowFacets {
                person: Some("\u{202e}<script>"),
                ..none
            },
            vec!["4"],
        ),
        (
            RowFacets {
                person: Some("' OR 1=1 --"),
                ..none
            },
            vec![],
        ),
        (
            RowFacets {
                environment: Some("production"),
                ..none
            },
            vec![],
        ),
    ] {
        for limit in [1, 2, 10] {
            let query = RowQuery {
                facets,
                limit,
                service: Some("shop"),
                ..RowQuery::new("run")
            };
            let found = store.rows_of_all_pages(query).await.unwrap();
            assert_eq!(keys(&found), expected, "{facets:?}");
        }
    }
}

pub async fn a_row_is_found_by_what_it_is_now_and_not_by_what_it_was(place: &impl Place) {
    let store = place.open();
    for (version, state) in ["queued", "running", "success"].into_iter().enumerate() {
        let row = ViewRow {
            doc: serde_json::json!({ "status": state }),
            ..row("run", "1", "shop", true, 0)
        };
        let append = changing("run/1", version as u64, vec![row]);
        store.append(append).await.unwrap();
    }
    for (state, count) in [("queued", 0), ("running", 0), ("success", 1)] {
        let facets = RowFacets {
            state: Some(state),
            ..RowFacets::default()
        };
        let query = RowQuery {
            facets,
            ..RowQuery::new("run")
        };
        let found = store.rows_of_all_pages(query).await.unwrap();
        assert_eq!(found.len(), count, "{state}");
    }
}

pub async fn rows_are_found_by_the_time_of_their_last_change(place: &impl Place) {
    let store = place.open();
    let moment = |second: i64| Timestamp::from_second(second).unwrap();
    for number in 0..20_u64 {
        let row = row("run", &number.to_string(), "shop", true, 0);
        let mut append = changing(&format!("run/{number}"), 0, vec![row]);
        let at = moment(100 + 10 * i64::try_from(number / 2).unwrap());
        append.events = vec![serde_json::json!({ "at": at }).to_string()];
        store.append(append).await.unwrap();
    }
    store
        .forget_streams(vec!["run/5".to_owned()])
        .await
        .unwrap();
    let last = store.last_position().await.unwrap();
    assert_eq!(store.position_at(moment(0)).await.unwrap(), 1);
    assert_eq!(store.position_at(moment(1_000)).await.unwrap(), last + 1);
    let since = store.position_at(moment(120)).await.unwrap();
    let until = store.position_at(moment(131)).await.unwrap();
    let query = RowQuery {
        floor: Some(row_order(since, 0)),
        cursor: Some(row_order(until, 0)),
        ..RowQuery::new("run")
    };
    let found = store.rows_of_all_pages(query).await.unwrap();
    assert_eq!(keys(&found), ["7", "6", "5", "4"]);
}

pub async fn pages_hold_each_row_once_wherever_they_are_cut(place: &impl Place) {
    let store = place.open();
    for number in 0..10 {
        let row = row("run", &number.to_string(), "shop", true, 0);
        let append = changing("run/1", number, vec![row]);
        store.append(append).await.unwrap();
    }
    let expected: Vec<_> = (0..10).rev().map(|number| number.to_string()).collect();
    for limit in 1..12 {
        assert_eq!(by_pages(&*store, limit).await, expected, "{limit} a page");
    }
}

pub async fn rows_of_one_append_are_listed_with_its_last_one_first(place: &impl Place) {
    let store = place.open();
    let rows = ["a", "b", "c"].map(|key| row("run", key, "shop", true, 0));
    store
        .append(changing("run/1", 0, rows.into()))
        .await
        .unwrap();
    let first = ["b", "a"].map(|key| row("run", key, "shop", true, 1));
    store
        .append(changing("run/1", 1, first.into()))
        .await
        .unwrap();
    assert_eq!(keys(&store.all_rows("run").await.unwrap()), ["a", "b", "c"]);
}

pub async fn a_row_that_goes_between_two_pages_hides_no_other(place: &impl Place) {
    let store = place.open();
    let rows = ["a", "b", "c", "d"].map(|key| row("run", key, "shop", true, 0));
    store
        .append(changing("run/1", 0, rows.into()))
        .await
        .unwrap();
    for (version, gone) in [(1, "d"), (2, "c")] {
        let query = RowQuery {
            limit: 1,
            ..RowQuery::new("run")
        };
        let first = store.rows(query).await.unwrap();
        assert_eq!(keys(&first.rows), [gone]);
        let rows = vec![ViewRow::deleted("run", gone)];
        store
            .append(changing("run/1", version, rows))
            .await
            .unwrap();
        let rest = RowQuery {
            cursor: first.next,
            ..query
        };
        let rest = store.rows_of_all_pages(rest).await.unwrap();
        let expected: &[&str] = if gone == "d" {
            &["c", "b", "a"]
        } else {
            &["b", "a"]
        };
        assert_eq!(keys(&rest), expected);
    }
}

pub async fn rows_of_one_append_are_never_cut_in_two(place: &impl Place) {
    let store = place.open();
    let of = |append: u64| (0..4).map(move |number| format!("{append}.{number}"));
    for append in 0..3 {
        let rows = of(append).map(|key| row("run", &key, "shop", true, 0));
        let append = changing("run/1", append, rows.collect());
        store.append(append).await.unwrap();
    }
    let mut expected: Vec<_> = (0..3).flat_map(of).collect();
    expected.sort();
    for limit in 1..14 {
        let mut found = by_pages(&*store, limit).await;
        found.sort();
        assert_eq!(found, expected, "{limit} a page");
    }
}

pub async fn replaced_rows_keep_their_order_before_what_changes_next(place: &impl Place) {
    let store = place.open();
    let old = vec![
        row("run", "old", "", false, 0),
        row("rollout", "other", "", false, 0),
    ];
    store.append(changing("run/1", 0, old)).await.unwrap();
    let rows = ["a", "b", "c"].map(|key| row("run", key, "", false, 0));
    store.replace_rows("run", rows.to_vec()).await.unwrap();
    assert_eq!(keys(&store.all_rows("run").await.unwrap()), ["c", "b", "a"]);
    assert_eq!(keys(&store.all_rows("rollout").await.unwrap()), ["other"]);
    let changed = vec![row("run", "a", "", false, 1)];
    store.append(changing("run/1", 1, changed)).await.unwrap();
    assert_eq!(keys(&store.all_rows("run").await.unwrap()), ["a", "c", "b"]);
}

pub async fn caches_survive_a_reopening(place: &impl Place) {
    let store = place.open();
    let rows = ["a", "b"].map(|key| row("run", key, "shop", true, 0));
    let append = Append {
        rows: rows.to_vec(),
        live: true,
        ..with_snapshot(0, "{}")
    };
    store.append(append).await.unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.live("run").await.unwrap(), ["run/1"]);
    assert_eq!(store.snapshot("run/1").await.unwrap().unwrap().version, 1);
    let changed = vec![row("run", "a", "shop", true, 1)];
    store.append(changing("run/1", 1, changed)).await.unwrap();
    assert_eq!(keys(&store.all_rows("run").await.unwrap()), ["a", "b"]);
}

fn keys(rows: &[ViewRow]) -> Vec<String> {
    rows.iter().map(|row| row.key.clone()).collect()
}

/// The keys of all rows, read in pages.
async fn by_pages(store: &dyn Store, limit: u32) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let query = RowQuery {
            cursor,
            limit,
            ..RowQuery::new("run")
        };
        let page = store.rows(query).await.unwrap();
        assert!(page.rows.len() <= limit as usize);
        found.extend(keys(&page.rows));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

pub async fn streams_can_be_forgotten_and_no_position_is_given_twice(place: &impl Place) {
    let store = place.open();
    store
        .append(facts("request/a", 0, &["{}", "{}"]))
        .await
        .unwrap();
    store.append(facts("request/b", 0, &["{}"])).await.unwrap();
    let newest = store.last_position().await.unwrap();
    let forgotten = ["request/a", "request/b", "request/none"].map(str::to_owned);
    store.forget_streams(forgotten.to_vec()).await.unwrap();
    assert!(store.read("request/a", 0).await.unwrap().is_empty());
    assert_eq!(store.streams("request").await.unwrap(), ["request/b"]);
    assert_eq!(store.last_position().await.unwrap(), newest);
    // The name is free again.
    store.append(facts("request/a", 0, &["{}"])).await.unwrap();
    assert!(store.last_position().await.unwrap() > newest);
    let log = place.open().subscribe(0).await.unwrap();
    let streams: Vec<String> = log.take(2).map(|it| it.unwrap().stream).collect().await;
    assert_eq!(streams, ["request/b", "request/a"]);
    assert_eq!(store.read("request/a", 0).await.unwrap().len(), 1);
}
