//! Which bucket a user falls in: the hash that flags and traffic splits share, so that both mean the same by "10%".
//!
//! MurmurHash3 x86 32, seed 0, over the deterministic CBOR array `[flag key, targeting key]` (flagd's bucketing v3), scaled by
//! `(hash * total) >> 32`. Raising the weight of the *first* variant only ever adds users to it.
//!
//! ```
//! use shipway_flags::{bucket_for, choose_variant};
//! let bucket = bucket_for("checkout", "user-17", 10_000);
//! assert!(bucket < 10_000);
//! assert_eq!(choose_variant(&[0, 10_000], bucket), Some(1));
//! ```

use serde::{Deserialize, Serialize};

use crate::cbor::{push_array_head, push_text};

/// How a `fractional` hashes its subject. A set of flags has one and it is never changed for the user: every subject would get
/// another bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BucketingVersion {
    /// The UTF-8 of a string: the flag's key and the targeting key, one after the other, or a string that the rule computes.
    V2,
    /// Deterministic CBOR: the array of both keys, or any value but an array that the rule computes.
    #[default]
    V3,
}

impl std::fmt::Display for BucketingVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BucketingVersion::V2 => "v2",
            BucketingVersion::V3 => "v3",
        })
    }
}

/// The bucket of `key` under `salt`, in `0..total`. `total` is at most 2³¹−1; 0 gives 0.
#[must_use]
pub fn bucket_for(salt: &str, key: &str, total: u32) -> u32 {
    scale_hash(hash_key(salt, key), total)
}

/// What a user is under `salt`: [`scale_hash`] makes the bucket of it.
#[must_use]
pub fn hash_key(salt: &str, key: &str) -> u32 {
    let mut cbor = Vec::with_capacity(salt.len() + key.len() + 11);
    push_array_head(&mut cbor, 2);
    push_text(&mut cbor, salt);
    push_text(&mut cbor, key);
    murmur3_32(&cbor)
}

/// The index of the first variant whose cumulative weight lies above `bucket`; `None` when all weights are 0.
#[must_use]
pub fn choose_variant(weights: &[u32], bucket: u32) -> Option<usize> {
    let mut cumulative = 0u64;
    weights.iter().position(|&weight| {
        cumulative += u64::from(weight);
        cumulative > u64::from(bucket)
    })
}

/// MurmurHash3 x86 32 with seed 0 (Austin Appleby, public domain).
#[must_use]
pub fn murmur3_32(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |word: u32| word.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = words.iter().fold(0u32, |hash, word| {
        (hash ^ mix(u32::from_le_bytes(*word)))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64)
    });
    let tail = rest
        .iter()
        .rev()
        .fold(0u32, |word, &byte| (word << 8) | u32::from(byte));
    if !rest.is_empty() {
        hash ^= mix(tail);
    }
    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).expect("masked to 32 bits");
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The bucket of a hash, in `0..total`.
#[must_use]
pub fn scale_hash(hash: u32, total: u32) -> u32 {
    u32::try_from((u64::from(hash) * u64::from(total)) >> 32)
        .expect("a product shifted by 32 bits fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_reaches_its_published_edges() {
        for (text, hash) in [
            ("ejOoVL", 0),
            ("bY9fO-", 1),
            ("SI7p-", i32::MAX as u32),
            ("6LvT0", 1 << 31),
            ("ceQdGm", u32::MAX),
        ] {
            assert_eq!(murmur3_32(text.as_bytes()), hash, "{text}");
        }
    }

    /// The share of a hash over n users strays by √(p(1−p)/n): half a point is one standard deviation of 50% at 10,000 users,
    /// and more than three at 100,000.
    #[test]
    fn a_hundred_thousand_users_are_split_within_half_a_point() {
        for weight in [100, 1_000, 5_000, 9_000] {
            let is_on = |user: &u32| bucket_for("shop/7", &format!("user-{user}"), 10_000) < weight;
            let on = (0..100_000).filter(is_on).count();
            let off_by = (on as f64 / 1_000.0 - f64::from(weight) / 100.0).abs();
            assert!(
                off_by <= 0.5,
                "weight {weight}: {on} users, off by {off_by} points"
            );
        }
    }

    proptest! {
        #[test]
        fn raising_the_first_weight_moves_nobody_back(user in ".{0,40}", low in 0u32..10_000, more in 0u32..10_000) {
            let high = (low + more).min(10_000);
            let bucket = bucket_for("salt", &user, 10_000);
            let before = choose_variant(&[low, 10_000 - low], bucket);
            let after = choose_variant(&[high, 10_000 - high], bucket);
            prop_assert!(before != Some(0) || after == Some(0));
        }
    }
}
