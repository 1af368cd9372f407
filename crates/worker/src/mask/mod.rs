//! Masks secrets in text that leaves the job: each secret, each of its lines, and their usual encodings. Matches that
//! overlap or touch become one `***`, so that the output doesn't show where a secret ends.
//!
//! ```
//! let masker = shipway_worker::Masker::new(["hunter2".to_owned()]);
//! assert_eq!(masker.mask("password=hunter2;"), "password=***;");
//! ```

use std::{
    borrow::Cow,
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

mod mask_stream;
mod secret_forms;

pub use mask_stream::MaskStream;

const MASK: &str = "***";

/// Up to this size of all patterns the automaton is a DFA: fastest, but up to 1 KiB of memory per byte. Above, it is
/// an NFA, which is several times slower and smaller.
const TABLE_BYTES_MAX: usize = 32 * 1024;

/// Replaces secrets by `***`.
#[derive(Debug, Default)]
pub struct Masker {
    patterns: BTreeSet<String>,
    longest: usize,
    /// Built on first use: secrets are often added several at a time.
    automaton: OnceLock<Option<AhoCorasick>>,
    /// All added secrets, shared with the maskers of background steps.
    added: Arc<Mutex<Vec<String>>>,
    /// How many of `added` are in `patterns`.
    known: usize,
}

impl Masker {
    /// Creates a masker for these secrets.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut masker = Self::default();
        secrets.into_iter().for_each(|secret| masker.add(&secret));
        masker
    }

    /// Adds a secret.
    pub fn add(&mut self, secret: &str) {
        self.learn_shared_secrets();
        self.lock_added().push(secret.to_owned());
        self.known += 1;
        self.add_patterns(secret);
    }

    /// A masker for a background step: both learn each other's secrets.
    pub(crate) fn for_background_step(&self) -> Self {
        Self {
            patterns: self.patterns.clone(),
            longest: self.longest,
            automaton: self.automaton.clone(),
            added: Arc::clone(&self.added),
            known: self.known,
        }
    }

    /// Learns secrets that were added to other maskers.
    pub(crate) fn learn_shared_secrets(&mut self) {
        let new: Vec<String> = match self.lock_added().get(self.known..) {
            None | Some([]) => return,
            Some(new) => new.to_vec(),
        };
        self.known += new.len();
        new.iter().for_each(|secret| self.add_patterns(secret));
    }

    /// The added secrets from index `from` on.
    pub(crate) fn added_since(&self, from: usize) -> Vec<String> {
        let added = self.lock_added();
        added
            .get(from..)
            .map(<[String]>::to_vec)
            .unwrap_or_default()
    }

    fn lock_added(&self) -> MutexGuard<'_, Vec<String>> {
        // A panic can't leave the list half-updated, so a poisoned lock is safe to use.
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_patterns(&mut self, secret: &str) {
        let before = self.patterns.len();
        self.patterns
            .extend(secret_forms::list_secret_forms(secret));
        if self.patterns.len() > before {
            self.longest = self.patterns.iter().map(String::len).max().unwrap_or(0);
            self.automaton = OnceLock::new();
        }
    }

    /// All patterns.
    pub(crate) fn all_patterns(&self) -> Vec<&str> {
        self.patterns.iter().map(String::as_str).collect()
    }

    /// Whether the text contains a secret.
    #[must_use]
    pub fn contains_secret(&self, text: &str) -> bool {
        self.automaton()
            .is_some_and(|automaton| automaton.is_match(text))
    }

    /// Masks a text.
    #[must_use]
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Still UTF-8: patterns consist of whole characters.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Masks bytes.
    #[must_use]
    pub fn mask_bytes<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let ranges = self.secret_ranges(text, 0);
        if ranges.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut masked = Vec::with_capacity(text.len());
        let mut done = 0;
        for range in ranges {
            masked.extend_from_slice(&text[done..range.start]);
            masked.extend_from_slice(MASK.as_bytes());
            done = range.end;
        }
        masked.extend_from_slice(&text[done..]);
        Cow::Owned(masked)
    }

    /// The ranges to mask, sorted and disjoint. The first `covered` bytes of `text` belong to a secret that began
    /// before it.
    fn secret_ranges(&self, text: &[u8], covered: usize) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if covered > 0 {
            ranges.push(0..covered);
        }
        // All matches, including those inside others: overlapping secrets must be masked as a whole.
        let matches = self
            .automaton()
            .map(|automaton| automaton.find_overlapping_iter(text));
        for found in matches.into_iter().flatten() {
            let mut range = found.start()..found.end();
            while let Some(last) = ranges.last().filter(|last| last.end >= range.start) {
                range = range.start.min(last.start)..range.end.max(last.end);
                ranges.pop();
            }
            ranges.push(range);
        }
        ranges
    }

    fn automaton(&self) -> Option<&AhoCorasick> {
        let made = self.automaton.get_or_init(|| {
            if self.patterns.is_empty() {
                return None;
            }
            let bytes: usize = self.patterns.iter().map(String::len).sum();
            let kind = (bytes <= TABLE_BYTES_MAX).then_some(AhoCorasickKind::DFA);
            let built = AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .kind(kind)
                .build(&self.patterns);
            Some(built.expect("secrets are far from the 2^31 states that are the limit"))
        });
        made.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cr3t/+\"pass & <w>";

    #[test]
    fn usual_encodings_are_masked() {
        let masker = Masker::new([SECRET.to_owned()]);
        for (written, shown) in [
            (SECRET.to_owned(), "a *** b"),
            (serde_json::to_string(SECRET).unwrap(), "a \"***\" b"),
            ("s3cr3t%2F%2B%22pass%20%26%20%3Cw%3E".to_owned(), "a *** b"),
            ("s3cr3t%2f%2b%22pass+%26+%3cw%3e".to_owned(), "a *** b"),
            ("s3cr3t/+&quot;pass &amp; &lt;w&gt;".to_owned(), "a *** b"),
            ("s3cr3t/+\\\"pass\\ \\&\\ \\<w\\>".to_owned(), "a *** b"),
        ] {
            assert_eq!(masker.mask(&format!("a {written} b")), shown, "{written}");
        }
    }

    #[test]
    fn base64_is_masked_wherever_the_secret_stands_in_it() {
        let masker = Masker::new([SECRET.to_owned()]);
        for before in ["", "x", "xy", "xyz"] {
            for after in ["", "!", "!!"] {
                for engine in [
                    base64::engine::general_purpose::STANDARD,
                    base64::engine::general_purpose::URL_SAFE_NO_PAD,
                ] {
                    let encoded = engine.encode(format!("{before}{SECRET}{after}"));
                    let shown = masker.mask(&encoded).into_owned();
                    // What remains encodes neighbouring bytes: at most four characters on each side.
                    assert!(shown.contains("***"), "{before} {after}: {encoded}");
                    assert!(shown.len() <= 3 + 4 + 5, "{before} {after}: {shown}");
                }
            }
        }
    }

    #[test]
    fn long_secrets_are_masked_in_base64_that_is_wrapped() {
        let secret = "0123456789abcdef".repeat(20);
        let masker = Masker::new([secret.clone()]);
        let encoded = base64::engine::general_purpose::STANDARD.encode(&secret);
        for width in [64, 76] {
            for line in encoded.as_bytes().chunks(width) {
                let line = std::str::from_utf8(line).unwrap();
                assert!(masker.mask(line).len() <= 8, "{line}");
            }
        }
    }

    #[test]
    fn neighbours_and_overlaps_become_one() {
        let masker = Masker::new(["abcdef".to_owned(), "defghi".to_owned()]);
        assert_eq!(masker.mask("-abcdefghi-"), "-***-");
        assert_eq!(masker.mask("abcdefabcdef"), "***");
        assert_eq!(masker.mask("abcdef abcdef"), "*** ***");
        assert_eq!(masker.mask("nothing here"), "nothing here");
    }

    #[test]
    fn each_line_of_a_secret_is_one_and_nothing_is_none() {
        let masker = Masker::new(["first-line\r\n\n  second\n".to_owned(), String::new()]);
        assert_eq!(masker.mask("x second y first-line"), "x *** y ***");
        assert_eq!(masker.mask(" \n"), " \n");
    }

    proptest! {
        #[test]
        fn no_secret_is_left_whatever_is_around_it(
            secrets in prop::collection::vec("[a-d]{3,8}", 1..5),
            around in "[a-d ]{0,20}",
            which in any::<prop::sample::Index>(),
        ) {
            let secret = which.get(&secrets).clone();
            let masker = Masker::new(secrets.clone());
            let masked = masker.mask(&format!("{around}{secret}{around}")).into_owned();
            for secret in &secrets {
                prop_assert!(!masked.contains(secret.as_str()), "{masked}");
            }
        }

        #[test]
        fn a_stream_masks_as_the_whole_does_wherever_it_is_cut(
            secrets in prop::collection::vec("[ab]{1,6}", 1..4),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let masker = Masker::new(secrets);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let (mut stream, mut out, mut from) = (MaskStream::default(), Vec::new(), 0);
            for end in ends {
                stream.push(&masker, &text.as_bytes()[from..end], &mut out);
                from = end;
            }
            stream.finish(&masker, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), masker.mask(&text).into_owned());
        }
    }
}
