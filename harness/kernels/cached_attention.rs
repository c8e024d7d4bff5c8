//! Attention of one new token over keys and values that are kept from before: generation, token by token.
//!
//! The order of operations is that of [`super::attention`] without dropout, so that a token's states have the same bits
//! whether its sequence is computed at once or step by step.

use super::buffer::Buffer;
use super::lanes::{Kernel, LANES, exp, largest, sum, vectorised};
use super::matmul::{Precision, rounded};

/// Keys a new cache has room for; ours.
const FIRST_CAPACITY: usize = 2 * LANES;

/// Keys and values of one sequence in one layer.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// Transposed: [hidden, capacity].
    keys: Buffer,
    /// [capacity, hidden]
    values: Buffer,
    hidden: usize,
    capacity: usize,
    length: usize,
}

impl Cache {
    /// Forgets what is kept, and takes rows of `hidden` values from now on.
    pub fn clear(&mut self, hidden: usize) {
        if self.hidden != hidden {
            *self = Cache {
                hidden,
                ..Cache::default()
            };
        }
        self.length = 0;
    }

    /// Adds a token's key and value.
    pub fn push(&mut self, key: &[f32], value: &[f32], precision: Precision) {
        if self.length == self.capacity {
            self.grow();
        }
        let round = |value: f32| match precision {
            Precision::F32 => value,
            Precision::Bf16 => rounded(value),
        };
        let columns = self.keys.chunks_exact_mut(self.capacity);
        for (column, key) in columns.zip(key) {
            column[self.length] = round(*key);
        }
        let row = self.length * self.hidden;
        let row = &mut self.values[row..row + self.hidden];
        for (kept, value) in row.iter_mut().zip(value) {
            *kept = round(*value);
        }
        self.length += 1;
    }

    fn grow(&mut self) {
        let capacity = (2 * self.capacity).max(FIRST_CAPACITY);
        let mut keys = Buffer::zeros(self.hidden * capacity);
        if self.capacity > 0 {
            let old = self.keys.chunks_exact(self.capacity);
            for (new, old) in keys.chunks_exact_mut(capacity).zip(old) {
                new[..self.capacity].copy_from_slice(old);
            }
        }
        self.keys = keys;
        self.values.resize(capacity * self.hidden);
        self.capacity = capacity;
    }

    /// Makes this a copy of another, in the memory that is there.
    pub fn copy_from(&mut self, other: &Cache) {
        self.keys.resize(other.keys.len());
        self.keys.copy_from_slice(&other.keys);
        self.values.resize(other.values.len());
        let kept = other.length * other.hidden;
        self.values[..kept].copy_from_slice(&other.values[..kept]);
        (self.hidden, self.capacity, self.length) = (other.hidden, other.capacity, other.length);
    }
}

/// `context` [hidden] = for each head, the mean of the values weighted by softmax(query . key / sqrt(head width)).
pub fn attend(
    query: &[f32],
    cache: &Cache,
    heads: usize,
    precision: Precision,
    context: &mut [f32],
    scores: &mut Buffer,
) {
    scores.resize(cache.capacity);
    vectorised(Attend {
        query,
        cache,
        heads,
        round: precision == Precision::Bf16,
        context,
        scores,
    });
}

struct Attend<'a> {
    query: &'a [f32],
    cache: &'a Cache,
    heads: usize,
    round: bool,
    context: &'a mut [f32],
    scores: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let Cache {
            keys,
            values,
            hidden,
            capacity,
            length,
        } = self.cache;
        let (hidden, capacity, length) = (*hidden, *capacity, *length);
        let width = hidden / self.heads;
        let padded = length.next_multiple_of(LANES);
        let scale = 1.0 / (width as f32).sqrt();
        self.context.fill(0.0);
        for head in 0..self.heads {
            let features = head * width..(head + 1) * width;
            let scores = &mut self.scores[..padded];
            scores.fill(0.0);
            for feature in features.clone() {
                let query = self.query[feature];
                let query = if self.round { rounded(query) } else { query };
                let keys = &keys[feature * capacity..feature * capacity + padded];
                let blocks = scores.as_chunks_mut::<LANES>().0.iter_mut();
                for (scores, keys) in blocks.zip(keys.as_chunks::<LANES>().0) {
                    for lane in 0..LANES {
                        scores[lane] = query.mul_add(keys[lane], scores[lane]);
                    }
                }
            }
            let scores = &mut scores[..length];
            let greatest = largest(scores);
            for score in scores.iter_mut() {
                *score = exp((*score - greatest) * scale);
            }
            let inverse = 1.0 / sum(length, |key| scores[key]);
            let context = &mut self.context[features.clone()];
            for (key, score) in scores.iter().enumerate() {
                let probability = *score * inverse;
                let probability = if self.round {
                    rounded(probability)
                } else {
                    probability
                };
                let start = key * hidden + features.start;
                let values = &values[start..start + width];
                for (context, value) in context.iter_mut().zip(values) {
                    *context = probability.mul_add(*value, *context);
                }
            }
        }
    }
}
