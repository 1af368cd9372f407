//! The event log on SQLite and content-addressed blobs.
