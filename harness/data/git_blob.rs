//! The name git gives to a file's content: SHA-1 of `blob <bytes>\0` and the content. The hub declares it for files that are
//! not in large-file storage; it is the only checksum it has for them. Used to notice damage, not against an attacker.

/// SHA-1 (FIPS 180-4, section 6.1), fed piece by piece.
pub struct Sha1 {
    state: [u32; 5],
    block: Vec<u8>,
    bytes: u64,
}

impl Sha1 {
    /// Starts the name of a blob of so many bytes.
    pub fn of_blob(bytes: u64) -> Self {
        let mut hasher = Self::new();
        hasher.update(format!("blob {bytes}\0").as_bytes());
        hasher
    }

    fn new() -> Self {
        Self {
            state: [
                0x6745_2301,
                0xEFCD_AB89,
                0x98BA_DCFE,
                0x1032_5476,
                0xC3D2_E1F0,
            ],
            block: Vec::with_capacity(64),
            bytes: 0,
        }
    }

    pub fn update(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(64 - self.block.len()));
            self.block.extend_from_slice(now);
            data = later;
            if self.block.len() == 64 {
                self.compress();
            }
        }
    }

    /// 40 lower-case hexadecimal digits.
    pub fn finish(mut self) -> String {
        let bits = self.bytes * 8;
        self.block.push(0x80);
        if self.block.len() > 56 {
            self.block.resize(64, 0);
            self.compress();
        }
        self.block.resize(56, 0);
        self.block.extend_from_slice(&bits.to_be_bytes());
        self.compress();
        self.state
            .iter()
            .map(|word| format!("{word:08x}"))
            .collect()
    }

    fn compress(&mut self) {
        let mut schedule = [0u32; 80];
        for (word, bytes) in schedule.iter_mut().zip(self.block.chunks_exact(4)) {
            *word = bytes
                .iter()
                .fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for t in 16..80 {
            let mixed = schedule[t - 3] ^ schedule[t - 8] ^ schedule[t - 14] ^ schedule[t - 16];
            schedule[t] = mixed.rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = self.state;
        for (t, word) in schedule.iter().enumerate() {
            let (function, constant) = match t {
                0..20 => ((b & c) | (!b & d), 0x5A82_7999),
                20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(function)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (word, change) in self.state.iter_mut().zip([a, b, c, d, e]) {
            *word = word.wrapping_add(change);
        }
        self.block.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 examples; the blobs with `git hash-object --stdin`.
    #[test]
    fn sha1_equals_its_known_answers() {
        let digest = |text: &[u8]| {
            let mut hasher = Sha1::new();
            hasher.update(text);
            hasher.finish()
        };
        assert_eq!(digest(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            digest(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        );
        assert_eq!(
            Sha1::of_blob(0).finish(),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
        );
        let mut hello = Sha1::of_blob(6);
        hello.update(b"hel");
        hello.update(b"lo\n");
        assert_eq!(hello.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
