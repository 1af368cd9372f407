//! Spanned YAML tree and diagnostics, shared by every file format Shipway reads.
