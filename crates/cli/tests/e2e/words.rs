//! What a message must say: each word of it that a person needs.

use std::process::Output;

use crate::site::said;

/// Asserts that all of these are in a text.
#[track_caller]
pub fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

/// Asserts that none of these is in a text.
#[track_caller]
pub fn assert_silent_of(text: &str, words: &[&str]) {
    for word in words {
        assert!(!text.contains(word), "{word:?} is in\n{text}");
    }
}

/// Asserts how a command ended and what it said, to both streams.
#[track_caller]
pub fn assert_ends(output: &Output, code: i32, words: &[&str]) {
    let told = said(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert_says(&told, words);
}
