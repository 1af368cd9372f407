//! Drives a target without a fuzzer: every seed, then damaged ones for a while. The same damage each time: a failure comes
//! again, and says with which bytes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

/// How long a target is driven; long enough for some thousand inputs, short enough for every run of the tests.
/// `SHIPWAY_FUZZ_SECONDS` says otherwise, and then the damage is another each time.
const LONG: Duration = Duration::from_millis(1_500);
/// No input of this size may take longer: a hang is a bug as a panic is. Generous, for machines under load.
const SLOW: Duration = Duration::from_secs(20);
const BYTES_MAX: usize = 4_096;

/// Calls `target` with the seeds of `fuzz/seeds/NAME`, and with what becomes of them.
pub fn drive(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the target has seeds")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed can be read"))
        .collect();
    assert!(!seeds.is_empty(), "the target has seeds");
    seeds.iter().for_each(|seed| call(target, seed));
    let seconds = std::env::var("SHIPWAY_FUZZ_SECONDS")
        .ok()
        .and_then(|it| it.parse().ok());
    let long = seconds.map_or(LONG, Duration::from_secs);
    let mut random = Random(0x5eed_0f5e_ed0f_5eed);
    if seconds.is_some() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        random.0 ^= now.map_or(0, |now| now.as_nanos() as u64);
    }
    let start = Instant::now();
    while start.elapsed() < long {
        let input = random.damaged(&seeds);
        call(target, &input);
    }
}

fn call(target: fn(&[u8]), input: &[u8]) {
    let start = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("with these bytes: {:?}", String::from_utf8_lossy(input));
        eprintln!("which are {input:?}");
        resume_unwind(panic);
    }
    let took = start.elapsed();
    assert!(
        took < SLOW,
        "{took:?} with {:?}",
        String::from_utf8_lossy(input)
    );
}

/// Xorshift: enough for damage, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A seed with a few things wrong with it.
    fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let length = self.below(24).min(bytes.len() - at);
            match self.below(6) {
                0 => drop(bytes.drain(at..at + length)),
                1 => bytes.insert(at, self.next() as u8),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 => {
                    let piece = bytes[at..at + length].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let length = self.below(64).min(other.len() - from);
                    bytes.splice(at..at, other[from..from + length].iter().copied());
                }
                _ => {
                    let sign = *b" \n\t:-'\"[]{}(),.*&!|>#%${}=<?+\\/0\xff"
                        .get(self.below(33))
                        .unwrap_or(&0);
                    bytes.splice(at..at, std::iter::repeat_n(sign, 1 + self.below(8)));
                }
            }
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }
}
