//! Seeds for guests' random-number generators, from what the machine gives.
//!
//! The one idea: everything that may differ between two boots goes through a hash, so a seed is as good as the best of its
//! sources. The best is the `rng-seed` that firmware puts into the machine's device tree. Where there is none, how long calls
//! of the firmware take is all that is left.

use sha2::{Digest, Sha256};

/// Bytes of a seed, which is what Linux asks of it.
pub const SEED_BYTES: usize = 32;

/// Random bytes for guests.
#[derive(Clone)]
pub struct Entropy {
    key: [u8; SEED_BYTES],
    seeds: u64,
}

impl Entropy {
    /// Gathers the machine's seed and other bytes that differ from boot to boot.
    pub fn new(machine_seed: &[u8], other: impl Iterator<Item = u64>) -> Self {
        let mut hash = Sha256::new_with_prefix(b"guest-mem rng-seed");
        hash.update((machine_seed.len() as u64).to_le_bytes());
        hash.update(machine_seed);
        for sample in other {
            hash.update(sample.to_le_bytes());
        }
        Self {
            key: hash.finalize().into(),
            seeds: 0,
        }
    }

    /// A seed that was never given before and tells nothing of others.
    pub fn seed(&mut self) -> [u8; SEED_BYTES] {
        let derive = |what: &[u8]| {
            let hash = Sha256::new_with_prefix(self.key);
            hash.chain_update(what).finalize().into()
        };
        self.seeds += 1;
        let seed = derive(&self.seeds.to_le_bytes());
        // What comes later does not show what came before.
        self.key = derive(b"next");
        seed
    }
}

/// How long 256 calls of the firmware take, each in ticks of `time`.
#[cfg(target_os = "none")]
pub fn timing() -> impl Iterator<Item = u64> {
    (0..256).map(|_| {
        let since = crate::csr::read!("time");
        sbi_rt::get_spec_version();
        crate::csr::read!("time").rotate_left(32) ^ since
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i17_no_seed_comes_twice() {
        let mut seeds = std::vec::Vec::new();
        for machine_seed in [&b""[..], b"\x01", b"\x01\0\0\0\0\0\0\0", b"another"] {
            for other in [&[][..], &[1], &[1, 0], &[2]] {
                let mut entropy = Entropy::new(machine_seed, other.iter().copied());
                seeds.extend([(); 3].map(|()| entropy.seed()));
            }
        }
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count);
        assert!(!seeds.contains(&[0; SEED_BYTES]));
    }
}
