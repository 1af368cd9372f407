//! Secrets made unreadable wherever text leaves the job: each secret, each of its lines, and the encodings they usually appear in.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;

/// Shorter texts would mask half of every log.
const SECRET_BYTES_MIN: usize = 3;
const MASK: &str = "***";

/// Replaces secrets by `***`; matches that touch become one.
#[derive(Default)]
pub struct Masker {
    patterns: Vec<String>,
    automaton: Option<AhoCorasick>,
    longest: usize,
}

impl Masker {
    /// A masker of these secrets.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut masker = Self::default();
        masker.extend(secrets);
        masker
    }

    /// Masks these as well from now on.
    pub fn extend(&mut self, secrets: impl IntoIterator<Item = String>) {
        let before = self.patterns.len();
        for secret in secrets {
            for line in std::iter::once(secret.as_str())
                .chain(secret.lines())
                .map(str::trim)
            {
                if line.len() >= SECRET_BYTES_MIN {
                    self.patterns.extend(forms(line));
                }
            }
        }
        if self.patterns.len() == before {
            return;
        }
        self.patterns
            .sort_unstable_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        self.patterns.dedup();
        self.longest = self.patterns.first().map_or(0, String::len);
        // Every match, also those within others: only so are overlapping secrets masked as a whole.
        self.automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&self.patterns)
            .ok();
    }

    /// The length of the longest text that is masked: a text cut in pieces must overlap by it.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Whether a secret is in the text.
    #[must_use]
    pub fn finds(&self, text: &str) -> bool {
        self.automaton
            .as_ref()
            .is_some_and(|automaton| automaton.is_match(text))
    }

    /// The text without secrets.
    #[must_use]
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(automaton) = self
            .automaton
            .as_ref()
            .filter(|automaton| automaton.is_match(text))
        else {
            return Cow::Borrowed(text);
        };
        let mut ranges: Vec<(usize, usize)> = automaton
            .find_overlapping_iter(text)
            .map(|found| (found.start(), found.end()))
            .collect();
        ranges.sort_unstable();
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for (start, end) in ranges {
            if start > done || (done == 0 && start == 0 && masked.is_empty()) {
                masked.push_str(&text[done..start]);
                masked.push_str(MASK);
            }
            done = done.max(end);
        }
        masked.push_str(&text[done..]);
        Cow::Owned(masked)
    }
}

/// A secret as it is, and as base64 (at three offsets), JSON, URL, XML and shell write it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let json = serde_json::to_string(secret).unwrap_or_default();
    forms.push(json.trim_matches('"').to_owned());
    forms.push(percent(secret));
    forms.push(
        secret
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&apos;"),
    );
    forms.push(secret.replace('\'', "'\\''"));
    forms.push(
        secret
            .chars()
            .flat_map(|c| {
                (!c.is_ascii_alphanumeric() && !"_-./:=@%+,".contains(c))
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect(),
    );
    for offset in 0..3usize {
        // Encoded after `offset` other bytes, without the characters that those bytes or the padding have a part in.
        let bytes = [vec![b'x'; offset].as_slice(), secret.as_bytes()].concat();
        for engine in [
            &base64::engine::general_purpose::STANDARD_NO_PAD,
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        ] {
            let encoded = engine.encode(&bytes);
            let from = [0, 2, 3][offset];
            let to = bytes.len() * 4 / 3;
            if to > from + SECRET_BYTES_MIN {
                forms.push(encoded[from..to].to_owned());
            }
        }
    }
    forms.retain(|form| form.len() >= SECRET_BYTES_MIN);
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodings_are_masked_and_neighbours_merge() {
        let masker = Masker::new(["s3cr3t/+\"pass".to_owned(), "pass-phrase".to_owned()]);
        assert_eq!(masker.mask("a s3cr3t/+\"pass b"), "a *** b");
        assert_eq!(masker.mask("s3cr3t/+\"pass-phrase"), "***");
        assert_eq!(masker.mask("s3cr3t%2F%2B%22pass"), "***");
        for prefix in ["", "x", "xy"] {
            let encoded = base64::engine::general_purpose::STANDARD
                .encode(format!("{prefix}s3cr3t/+\"pass!"));
            assert!(masker.mask(&encoded).contains("***"), "{prefix}: {encoded}");
        }
        assert_eq!(masker.mask("nothing here"), "nothing here");
        assert_eq!(Masker::new(["ab".to_owned()]).mask("ab"), "ab");
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let masker = Masker::new(["first-line\nsecond-line\n".to_owned()]);
        assert_eq!(masker.mask("x second-line y"), "x *** y");
    }

    proptest! {
        #[test]
        fn no_secret_is_left_whatever_is_around_it(secrets in prop::collection::vec("[a-z]{3,8}", 1..5), around in "[a-z ]{0,20}", which in 0usize..5) {
            let secret = secrets[which % secrets.len()].clone();
            let masker = Masker::new(secrets.clone());
            let masked = masker.mask(&format!("{around}{secret}{around}")).into_owned();
            for secret in &secrets {
                prop_assert!(!masked.contains(secret.as_str()), "{masked}");
            }
        }
    }
}
