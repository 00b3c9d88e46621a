//! Damaged seeds: small changes of the kinds that fuzzers make, the same ones in every run.

/// Bytes that mean something to one format or another.
const TOKENS: [&[u8]; 24] = [
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b",",
    b":",
    b"-1",
    b"0",
    b"1e999",
    b"null",
    b"\\ud800",
    b"\r\n",
    b"--",
    b"/",
    b"..",
    b"%",
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"18446744073709551616",
];

/// Chances from a seed: SplitMix64, of which any seed is a good one.
#[derive(Debug, Clone)]
pub struct Chances(u64);

impl Chances {
    /// The chances that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number under `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.next_u64().checked_rem(bound as u64).unwrap_or(0) as usize
    }

    /// One of `from`; the first kind of nothing where there is none.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &'a [&'a T]) -> Option<&'a T> {
        from.get(self.below(from.len())).copied()
    }
}

/// One of `seeds` with one to eight changes, parts of other seeds among them.
pub fn mutated(seeds: &[&[u8]], chances: &mut Chances) -> Vec<u8> {
    let mut data = chances.pick(seeds).unwrap_or_default().to_vec();
    // Mostly few changes, because many are refused at the first byte.
    for _ in 0..=chances.below(4) * chances.below(3) {
        change(&mut data, seeds, chances);
    }
    data
}

fn change(data: &mut Vec<u8>, seeds: &[&[u8]], chances: &mut Chances) {
    let at = chances.below(data.len() + 1);
    let length = 1 + chances.below(16);
    let end = (at + length).min(data.len());
    match chances.below(8) {
        0 => flip(data, at, 1 << chances.below(8)),
        1 => flip(data, at, chances.next_u64() as u8),
        2 => data.truncate(at),
        3 => drop(data.drain(at..end)),
        4 => drop(data.splice(at..at, data.get(at..end).unwrap_or_default().to_vec())),
        5 => {
            let token = chances.pick(&TOKENS).unwrap_or_default();
            data.splice(at..at, token.iter().copied());
        }
        6 => {
            let token = chances.pick(&TOKENS).unwrap_or_default();
            let end = (at + token.len()).min(data.len());
            data.splice(at..end, token.iter().copied());
        }
        _ => {
            let other = chances.pick(seeds).unwrap_or_default();
            let from = chances.below(other.len());
            let to = (from + 1 + chances.below(64)).min(other.len());
            let part = other.get(from..to).unwrap_or_default();
            data.splice(at..end, part.iter().copied());
        }
    }
}

fn flip(data: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = data.get_mut(at) {
        *byte ^= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_chances_make_the_same_inputs_and_others_make_others() {
        let seeds: [&[u8]; 2] = [b"{\"inputs\":[]}", b"--boundary"];
        let made = |seed| {
            let mut chances = Chances::new(seed);
            (0..1_000).map(|_| mutated(&seeds, &mut chances)).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        let changed = made(1).iter().filter(|data| !seeds.contains(&&***data)).count();
        assert!(changed > 900, "{changed} of 1000 differ from their seeds");
    }

    #[test]
    fn no_seeds_make_inputs_too() {
        let mut chances = Chances::new(1);
        assert!((0..1_000).any(|_| !mutated(&[], &mut chances).is_empty()));
    }
}
