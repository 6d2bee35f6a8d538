//! Everything random in the simulator, from a seed: a failing run replays.

use uuid::Uuid;

/// The splitmix64 generator: one word of state, good enough to scatter durations and draw ids.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A stream of random numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for what `name` names, so that one machine's fate does not depend on
    /// the order in which others were asked.
    pub fn of(seed: u64, name: &[u8]) -> Self {
        // FNV-1a, 64 bits.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(Self(seed ^ hash).draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// In 0..1, 1 excluded.
    pub fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.draw() >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }

    /// In 0..`bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.draw() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            for (byte, drawn) in chunk.iter_mut().zip(self.draw().to_be_bytes()) {
                *byte = drawn;
            }
        }
        bytes
    }

    /// A random id, of version 4.
    pub fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_streams_differ() {
        let draws = |mut chance: Chance| (0..4).map(|_| chance.draw()).collect::<Vec<_>>();
        assert_eq!(draws(Chance::of(1, b"a")), draws(Chance::of(1, b"a")));
        assert_ne!(draws(Chance::of(1, b"a")), draws(Chance::of(1, b"b")));
        assert_ne!(draws(Chance::of(1, b"a")), draws(Chance::of(2, b"a")));
        // The published first output of splitmix64 for seed 0.
        assert_eq!(Chance::new(0).draw(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn shares_and_bounds_hold() {
        let mut chance = Chance::new(7);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&chance.share())));
        assert!((0..1000).all(|_| chance.below(3) < 3));
        assert_eq!(chance.uuid().get_version_num(), 4);
    }
}
