//! Masks text that arrives in pieces: a secret may be split anywhere.

use super::{MASK, Masker};

/// The state between pieces. Holds back as many bytes as a secret may begin with.
#[derive(Debug, Default)]
pub struct MaskStream {
    held: Vec<u8>,
    /// How many of the held bytes belong to a secret whose mask was already written.
    covered: usize,
    /// Whether the last output was a mask.
    masked: bool,
}

impl MaskStream {
    /// Processes a piece; appends what can be written to `out`.
    pub fn push(&mut self, masker: &Masker, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        // A secret that begins before this index is held completely.
        let known = self
            .held
            .len()
            .saturating_sub(masker.longest.saturating_sub(1));
        self.write_until(masker, known, out);
    }

    /// Ends the text.
    pub fn finish(&mut self, masker: &Masker, out: &mut Vec<u8>) {
        self.write_until(masker, self.held.len(), out);
        *self = Self::default();
    }

    fn write_until(&mut self, masker: &Masker, end: usize, out: &mut Vec<u8>) {
        let (mut done, mut covered) = (0, self.covered.saturating_sub(end));
        for range in masker.secret_ranges(&self.held, self.covered) {
            if range.start >= end {
                break;
            }
            self.write_plain(done..range.start, out);
            if !self.masked {
                out.extend_from_slice(MASK.as_bytes());
                self.masked = true;
            }
            done = range.end.min(end);
            covered = range.end - done;
        }
        self.write_plain(done..end, out);
        self.held.drain(..end);
        self.covered = covered;
    }

    fn write_plain(&mut self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        if !range.is_empty() {
            out.extend_from_slice(&self.held[range]);
            self.masked = false;
        }
    }
}
