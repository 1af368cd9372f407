//! Text that comes in pieces, masked as if it had come whole: a secret may be cut anywhere.

use super::{MASK, Masker};

/// A text under way. Holds back as many bytes as the beginning of a secret may have, and no more.
#[derive(Debug, Default)]
pub struct MaskStream {
    held: Vec<u8>,
    /// So many of the held bytes belong to a secret whose beginning is out already.
    covered: usize,
    /// Whether the last thing that went out was a mask.
    masked: bool,
}

impl MaskStream {
    /// Takes more of the text, and gives out what is safe.
    pub fn push(&mut self, masker: &Masker, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        // Every secret that begins before here is held as a whole.
        let known = self
            .held
            .len()
            .saturating_sub(masker.longest.saturating_sub(1));
        self.emit(masker, known, out);
    }

    /// The text is over.
    pub fn finish(&mut self, masker: &Masker, out: &mut Vec<u8>) {
        self.emit(masker, self.held.len(), out);
        *self = Self::default();
    }

    fn emit(&mut self, masker: &Masker, end: usize, out: &mut Vec<u8>) {
        let (mut done, mut covered) = (0, self.covered.saturating_sub(end));
        for range in masker.ranges(&self.held, self.covered) {
            if range.start >= end {
                break;
            }
            self.plain(done..range.start, out);
            if !self.masked {
                out.extend_from_slice(MASK.as_bytes());
                self.masked = true;
            }
            done = range.end.min(end);
            covered = range.end - done;
        }
        self.plain(done..end, out);
        self.held.drain(..end);
        self.covered = covered;
    }

    fn plain(&mut self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        if !range.is_empty() {
            out.extend_from_slice(&self.held[range]);
            self.masked = false;
        }
    }
}
