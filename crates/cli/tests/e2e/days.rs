//! Bad days: what dies, lies, fills up or comes twice.
