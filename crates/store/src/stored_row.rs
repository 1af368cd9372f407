//! A row of a read model as the file has it.

use shipway_core::aggregate::ViewRow;

/// A row from its columns `kind, key, service, live, doc`.
pub(crate) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ViewRow> {
    let doc: String = row.get(4)?;
    let doc = serde_json::from_str(&doc).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(ViewRow {
        kind: row.get(0)?,
        key: row.get(1)?,
        service: row.get(2)?,
        live: row.get(3)?,
        doc,
    })
}
