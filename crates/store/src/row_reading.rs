//! Reads a page of rows by the index that leaves the fewest to search.
//!
//! # Why
//!
//! Without statistics SQLite can't know that 3 of 100,000 runs are a person's and 60,000 succeeded. So each given condition is counted, up
//! to a bound, and the index of the rarest one is read in the order of the list. It holds the other properties too, so that a row that a
//! second condition excludes is not read.

use rusqlite::{Connection, params, params_from_iter, types::Value};
use shipway_core::{aggregate::ViewRow, row_facets::RowFacet};
use shipway_engine::{RowFilter, RowPage, RowQuery, RowScope};

use crate::{
    schema::{facet_column, facet_index},
    stored_row::read_row,
};

/// Rows of a condition that are counted at most: beyond that it is common.
const COUNT_MAX: u32 = 2_000;

/// A query that owns its values.
#[derive(Debug)]
pub(crate) struct RowReading {
    kind: String,
    /// Columns and their values; each has an index.
    conditions: Vec<RowCondition>,
    /// The services that the reader may see; none for all.
    visible: Option<Vec<String>>,
    scope: RowScope,
    /// SQL after all other conditions, and its values.
    filter: Option<(&'static str, Vec<Value>)>,
    floor: Option<u64>,
    cursor: Option<u64>,
    limit: u32,
}

/// `column = value`.
#[derive(Debug)]
struct RowCondition {
    column: &'static str,
    index: &'static str,
    value: String,
}

impl RowReading {
    pub(crate) fn new(query: &RowQuery<'_>) -> Self {
        let service = query.service.map(|service| RowCondition {
            column: "service",
            index: "rows_service",
            value: service.to_owned(),
        });
        let facet = |(facet, value): (RowFacet, String)| RowCondition {
            column: facet_column(facet),
            index: facet_index(facet),
            value,
        };
        let facets = query.facets.normalized().into_iter().map(facet);
        Self {
            kind: query.kind.to_owned(),
            conditions: service.into_iter().chain(facets).collect(),
            visible: query
                .visible
                .map(|names| names.iter().map(ToString::to_string).collect()),
            scope: query.scope,
            filter: query.filter.map(filter_condition),
            floor: query.floor,
            cursor: query.cursor,
            limit: query.limit,
        }
    }

    pub(crate) fn read_page(&self, connection: &Connection) -> rusqlite::Result<RowPage> {
        let index = self.choose_index(connection)?;
        let (sql, values) = self.statement(index);
        let read = |row: &rusqlite::Row<'_>| Ok((read_row(row)?, row.get::<_, u64>(5)?));
        let mut statement = connection.prepare_cached(&sql)?;
        let found = statement.query_map(params_from_iter(values), read)?;
        let mut found: Vec<(ViewRow, u64)> = found.collect::<Result<_, _>>()?;
        let limit = self.limit as usize;
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let next = found.last().map(|(_, changed)| *changed);
        Ok(RowPage {
            rows: found.into_iter().map(|(row, _)| row).collect(),
            next: next.filter(|_| !is_last),
        })
    }

    /// The index of the rarest condition; all have the order of the list.
    fn choose_index(&self, connection: &Connection) -> rusqlite::Result<&'static str> {
        if self.scope == RowScope::Live {
            return Ok("rows_live");
        }
        let index = |condition: &RowCondition| condition.index;
        if self.conditions.len() < 2 {
            let only = self.conditions.first();
            return Ok(only.map_or("rows_changed", index));
        }
        let mut rarest = (u32::MAX, "rows_changed");
        for condition in &self.conditions {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM rows INDEXED BY {} WHERE kind = ?1 AND {} = ?2 LIMIT ?3)",
                condition.index, condition.column
            );
            let count: u32 = connection.prepare_cached(&sql)?.query_row(
                params![self.kind, condition.value, COUNT_MAX.min(rarest.0)],
                |row| row.get(0),
            )?;
            if count < rarest.0 {
                rarest = (count, condition.index);
            }
        }
        Ok(rarest.1)
    }

    /// Reads one row more than the page has, which shows whether there is a next page.
    fn statement(&self, index: &str) -> (String, Vec<Value>) {
        let mut sql = format!(
            "SELECT kind, key, service, live, doc, changed FROM rows INDEXED BY {index} WHERE kind = ?"
        );
        let mut values: Vec<Value> = vec![self.kind.clone().into()];
        for condition in &self.conditions {
            sql.push_str(" AND ");
            sql.push_str(condition.column);
            sql.push_str(" = ?");
            values.push(condition.value.clone().into());
        }
        if let Some(visible) = &self.visible {
            let marks = vec!["?"; visible.len()].join(", ");
            sql.push_str(&format!(" AND service IN ({marks})"));
            values.extend(visible.iter().map(|name| Value::from(name.clone())));
        }
        if self.scope == RowScope::Live {
            sql.push_str(" AND live = 1");
        }
        if let Some((condition, more)) = &self.filter {
            sql.push_str(condition);
            values.extend(more.iter().cloned());
        }
        let number = |order: u64| Value::from(i64::try_from(order).unwrap_or(i64::MAX));
        if let Some(floor) = self.floor {
            sql.push_str(" AND changed >= ?");
            values.push(number(floor));
        }
        if let Some(cursor) = self.cursor {
            sql.push_str(" AND changed < ?");
            values.push(number(cursor));
        }
        sql.push_str(" ORDER BY changed DESC LIMIT ?");
        values.push((i64::from(self.limit) + 1).into());
        (sql, values)
    }
}

fn filter_condition(filter: RowFilter<'_>) -> (&'static str, Vec<Value>) {
    match filter {
        RowFilter::Equals { path, value } => (
            " AND CAST(json_extract(doc, ?) AS TEXT) = ?",
            vec![format!("$.{path}").into(), value.to_owned().into()],
        ),
        RowFilter::StartsWith { path, prefix } => {
            let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
            (
                " AND substr(CAST(json_extract(doc, ?) AS TEXT), 1, ?) = ?",
                vec![
                    format!("$.{path}").into(),
                    length.into(),
                    prefix.to_owned().into(),
                ],
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use shipway_engine::RowFacets;

    use super::*;
    use crate::schema;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        schema::create_tables(&connection).unwrap();
        connection
    }

    /// How SQLite reads a query, in its own words.
    fn query_plan(connection: &Connection, query: &RowQuery<'_>) -> String {
        let reading = RowReading::new(query);
        let index = reading.choose_index(connection).unwrap();
        let (sql, values) = reading.statement(index);
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let lines = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3));
        lines
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap()
            .join("; ")
    }

    #[test]
    fn every_filter_is_read_from_an_index_in_the_order_of_the_list() {
        let connection = database();
        let all = RowQuery::new("run");
        let facets = RowFacets::default();
        let queries = [
            (all, "rows_changed (kind=?)"),
            (
                RowQuery {
                    cursor: Some(9),
                    floor: Some(3),
                    ..all
                },
                "rows_changed (kind=? AND changed>? AND changed<?)",
            ),
            (
                RowQuery {
                    service: Some("shop"),
                    ..all
                },
                "rows_service (kind=? AND service=?)",
            ),
            (
                RowQuery {
                    facets: RowFacets {
                        state: Some("failure"),
                        ..facets
                    },
                    ..all
                },
                "rows_state (kind=? AND state=?)",
            ),
            (
                RowQuery {
                    facets: RowFacets {
                        environment: Some("production"),
                        ..facets
                    },
                    ..all
                },
                "rows_environment (kind=? AND environment=?)",
            ),
            (
                RowQuery {
                    facets: RowFacets {
                        branch: Some("main"),
                        ..facets
                    },
                    cursor: Some(9),
                    ..all
                },
                "rows_branch (kind=? AND branch=? AND changed<?)",
            ),
            (
                RowQuery {
                    facets: RowFacets {
                        person: Some("Ada"),
                        ..facets
                    },
                    ..all
                },
                "rows_person (kind=? AND person=?)",
            ),
            (
                RowQuery {
                    scope: RowScope::Live,
                    ..all
                },
                "rows_live (kind=?)",
            ),
        ];
        for (query, index) in queries {
            let plan = query_plan(&connection, &query);
            let expected = format!("SEARCH rows USING INDEX {index}");
            assert_eq!(plan, expected, "{query:?}");
        }
    }

    #[test]
    fn of_several_conditions_the_rarest_is_read() {
        let connection = database();
        let insert = "INSERT INTO rows(kind, key, service, live, changed, doc, state, person) VALUES ('run', ?1, 'shop', 0, ?1, '{}', 'success', ?2)";
        for number in 0..50 {
            let person = if number == 7 { "ada" } else { "bob" };
            connection.execute(insert, params![number, person]).unwrap();
        }
        let query = RowQuery {
            service: Some("shop"),
            facets: RowFacets {
                state: Some("success"),
                person: Some("ADA"),
                ..RowFacets::default()
            },
            ..RowQuery::new("run")
        };
        let plan = query_plan(&connection, &query);
        assert!(plan.contains("rows_person"), "{plan}");
        let page = RowReading::new(&query).read_page(&connection).unwrap();
        let keys: Vec<_> = page.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["7"]);
    }
}
