//! Dropout whose mask is a function of (seed, step, pass, site, row, feature): nothing is stored, and neither
//! packing, shards nor threads change it (Srivastava et al. 2014; the survivors are scaled by 1 / (1 - rate)).

use crate::random::philox;

/// Which elements a site drops in one pass of one step.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    key: [u32; 2],
    /// Elements whose hash is below it are dropped.
    threshold: u32,
    /// 1 / (1 - rate).
    pub scale: f32,
}

/// The rows of a buffer: dropout's name of each, and its place in the shard that it is of.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Name of the shard's first row.
    pub first: u64,
    /// The shard's rows that are there, ascending; all where it is `None`.
    pub chosen: Option<&'a [u32]>,
}

impl Rows<'_> {
    /// All rows from one on.
    pub fn from(first: u64) -> Rows<'static> {
        Rows {
            first,
            chosen: None,
        }
    }

    #[inline(always)]
    pub fn place(&self, row: usize) -> usize {
        match self.chosen {
            None => row,
            Some(chosen) => chosen[row] as usize,
        }
    }

    #[inline(always)]
    pub fn name(&self, row: usize) -> u64 {
        self.first + self.place(row) as u64
    }
}

/// The part of the key that a row's elements share.
#[derive(Debug, Clone, Copy)]
pub struct RowKey([u32; 2]);

impl Dropout {
    /// `None` for a rate of zero. `stream` is the key of (seed, purpose); `step` and `pass` count from zero.
    pub fn new(rate: f32, stream: u64, step: u64, pass: u32, site: u32) -> Option<Dropout> {
        if rate <= 0.0 {
            return None;
        }
        let words = philox(
            [step as u32, (step >> 32) as u32, pass, site],
            [stream as u32, (stream >> 32) as u32],
        );
        Some(Dropout {
            key: [words[0], words[1]],
            threshold: (f64::from(rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - rate),
        })
    }

    /// Key and threshold, for a card's kernels.
    pub fn parts(&self) -> ([u32; 2], u32) {
        (self.key, self.threshold)
    }

    /// The key of one row. The mixing is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    #[inline(always)]
    pub fn row(&self, row: u64) -> RowKey {
        let mut mixed = (u64::from(self.key[0]) | u64::from(self.key[1]) << 32)
            .wrapping_add(row.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        RowKey([mixed as u32, (mixed >> 32) as u32])
    }

    /// Whether an element survives. The constants are those of MurmurHash3's 32-bit finaliser (Appleby 2011).
    #[inline(always)]
    pub fn keeps(&self, row: RowKey, feature: u32) -> bool {
        let mut hash = feature.wrapping_mul(0x9E37_79B9).wrapping_add(row.0[0]);
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B) ^ row.0[1];
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
        hash ^= hash >> 16;
        hash >= self.threshold
    }

    /// What an element is multiplied by: `scale` or zero.
    #[inline(always)]
    pub fn factor(&self, row: RowKey, feature: u32) -> f32 {
        if self.keeps(row, feature) {
            self.scale
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rate, independence of neighbours in both directions, and of sites, within five standard deviations.
    #[test]
    fn masks_have_their_rate_and_neighbours_are_independent() {
        let (rows, features) = (400u64, 256u32);
        let first = Dropout::new(0.1, 7, 3, 0, 0).unwrap();
        let second = Dropout::new(0.1, 7, 3, 0, 1).unwrap();
        let mut counts = [0f64; 4];
        for row in 0..rows {
            let (key, below, other) = (first.row(row), first.row(row + 1), second.row(row));
            for feature in 0..features {
                let dropped = !first.keeps(key, feature);
                counts[0] += f64::from(u8::from(dropped));
                counts[1] += f64::from(u8::from(dropped && !first.keeps(key, feature + 1)));
                counts[2] += f64::from(u8::from(dropped && !first.keeps(below, feature)));
                counts[3] += f64::from(u8::from(dropped && !second.keeps(other, feature)));
            }
        }
        let n = (rows * u64::from(features)) as f64;
        for (count, rate) in counts.iter().zip([0.1, 0.01, 0.01, 0.01]) {
            let deviation = (n * rate * (1.0 - rate)).sqrt();
            assert!((count - n * rate).abs() < 5.0 * deviation, "{counts:?}");
        }
        assert!(Dropout::new(0.0, 7, 3, 0, 0).is_none());
    }
}
