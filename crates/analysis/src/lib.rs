//! Judges: how measurements become verdicts. Pure.
