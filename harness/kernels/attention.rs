//! Scaled dot-product attention (Vaswani et al. 2017) over packed sequences, each by itself: of a sequence over itself, or
//! over its source.
//!
//! Probabilities are kept for the backward; their sign bit says that dropout dropped them, so that the mask is
//! computed once.

use std::ops::Range;

use super::buffer::Buffer;
use super::dropout::{Dropout, Rows};
use super::lanes::{Kernel, LANES, dot, exp, largest, sum, vectorised};
use super::matmul::{Matrix, Precision, Write, packed_length};

/// What the attention of one layer works on. Sequence s has the queries query_offsets[s] - query_offsets[0] ..
/// query_offsets[s + 1] - query_offsets[0] and the keys and values that `key_offsets` gives in the same way.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub hidden: usize,
    pub heads: usize,
    /// A query sees the keys up to its own place only; queries and keys are then of the same sequences.
    pub causal: bool,
    pub query_offsets: &'a [u32],
    pub key_offsets: &'a [u32],
    pub dropout: Option<Dropout>,
    /// Of the queries.
    pub rows: Rows<'a>,
    pub precision: Precision,
}

/// Where queries, keys and values lie.
#[derive(Clone, Copy)]
pub enum Operands<'a> {
    /// Rows of [query | key | value], each `hidden` wide.
    Own(&'a [f32]),
    /// Rows of queries, and rows of [key | value].
    Source {
        query: &'a [f32],
        key_value: &'a [f32],
    },
}

/// Where their gradients go, in the same places.
pub enum OperandGradients<'a> {
    Own(&'a mut [f32]),
    Source {
        query: &'a mut [f32],
        key_value: &'a mut [f32],
    },
}

/// Values from the start of the first row, and the distance of two rows.
type Strided<'a> = (&'a [f32], usize);

impl<'a> Operands<'a> {
    fn query(self, hidden: usize) -> Strided<'a> {
        match self {
            Operands::Own(rows) => (rows, 3 * hidden),
            Operands::Source { query, .. } => (query, hidden),
        }
    }

    fn key(self, hidden: usize) -> Strided<'a> {
        match self {
            Operands::Own(rows) => (&rows[hidden..], 3 * hidden),
            Operands::Source { key_value, .. } => (key_value, 2 * hidden),
        }
    }

    fn value(self, hidden: usize) -> Strided<'a> {
        match self {
            Operands::Own(rows) => (&rows[2 * hidden..], 3 * hidden),
            Operands::Source { key_value, .. } => (&key_value[hidden..], 2 * hidden),
        }
    }
}

impl OperandGradients<'_> {
    fn query(&mut self, hidden: usize) -> (&mut [f32], usize) {
        match self {
            OperandGradients::Own(rows) => (rows, 3 * hidden),
            OperandGradients::Source { query, .. } => (query, hidden),
        }
    }

    fn key(&mut self, hidden: usize) -> (&mut [f32], usize) {
        match self {
            OperandGradients::Own(rows) => (&mut rows[hidden..], 3 * hidden),
            OperandGradients::Source { key_value, .. } => (key_value, 2 * hidden),
        }
    }

    fn value(&mut self, hidden: usize) -> (&mut [f32], usize) {
        match self {
            OperandGradients::Own(rows) => (&mut rows[2 * hidden..], 3 * hidden),
            OperandGradients::Source { key_value, .. } => (&mut key_value[hidden..], 2 * hidden),
        }
    }

    /// Of keys that no query looks at.
    fn clear_keys(&mut self, keys: Range<usize>, hidden: usize) {
        // Where queries are those of the same rows, there are no keys either.
        if let OperandGradients::Source { key_value, .. } = self {
            key_value[2 * hidden * keys.start..2 * hidden * keys.end].fill(0.0);
        }
    }
}

/// Buffers that hold nothing between calls.
#[derive(Default)]
pub struct AttentionScratch {
    panels: Buffer,
    dropped: Buffer,
    gradient: Buffer,
}

/// A row of probabilities is padded to whole lanes.
fn row_length(length: usize) -> usize {
    length.next_multiple_of(LANES)
}

/// Values needed to keep the probabilities of all heads of these sequences.
pub fn probabilities_length(heads: usize, query_offsets: &[u32], key_offsets: &[u32]) -> usize {
    lengths(query_offsets)
        .zip(lengths(key_offsets))
        .map(|(queries, keys)| heads * queries * row_length(keys))
        .sum()
}

fn lengths(offsets: &[u32]) -> impl Iterator<Item = usize> {
    offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
}

/// context[t, :] = for each head, the mean of the values weighted by softmax(query . key / sqrt(head width)).
pub fn forward(
    attention: Attention,
    operands: Operands,
    probabilities: &mut [f32],
    context: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let Attention {
        hidden,
        heads,
        causal,
        query_offsets,
        key_offsets,
        dropout,
        rows,
        precision,
    } = attention;
    let width = hidden / heads;
    let scale = 1.0 / (width as f32).sqrt();
    let (query, query_stride) = operands.query(hidden);
    let (key, stride) = operands.key(hidden);
    let (value, _) = operands.value(hidden);
    let (mut first_query, mut first_key, mut used) = (0, 0, 0);
    for (queries, keys) in lengths(query_offsets).zip(lengths(key_offsets)) {
        if queries == 0 {
            first_key += keys;
            continue;
        }
        let padded = row_length(keys);
        scratch
            .panels
            .resize(packed_length(width, keys).max(packed_length(keys, width)));
        scratch.dropped.resize(queries * padded);
        for head in 0..heads {
            let of_queries = first_query * query_stride + head * width;
            let of_keys = first_key * stride + head * width;
            let scores = &mut probabilities[used..used + queries * padded];
            precision.pack(
                Matrix::columns(&key[of_keys..], stride),
                width,
                keys,
                &mut scratch.panels,
            );
            precision.multiply(
                queries,
                width,
                keys,
                Matrix::rows(&query[of_queries..], query_stride),
                &scratch.panels,
                scores,
                padded,
                Write::Replace,
            );
            vectorised(Softmax {
                scores,
                padded,
                length: keys,
                causal,
                scale,
                dropout,
                rows,
                first: (first_query, first_key),
                head: (head as u64, heads as u64),
                dropped: &mut scratch.dropped,
            });
            let weights = if dropout.is_some() {
                &scratch.dropped[..]
            } else {
                &*scores
            };
            precision.pack(
                Matrix::rows(&value[of_keys..], stride),
                keys,
                width,
                &mut scratch.panels,
            );
            precision.multiply(
                queries,
                keys,
                width,
                Matrix::rows(weights, padded),
                &scratch.panels,
                &mut context[first_query * hidden + head * width..],
                hidden,
                Write::Replace,
            );
            used += queries * padded;
        }
        first_query += queries;
        first_key += keys;
    }
}

/// gradients = those of the loss in query, key and value, from that in the context.
pub fn backward(
    attention: Attention,
    operands: Operands,
    probabilities: &[f32],
    context_gradient: &[f32],
    mut gradients: OperandGradients,
    scratch: &mut AttentionScratch,
) {
    let Attention {
        hidden,
        heads,
        query_offsets,
        key_offsets,
        dropout,
        precision,
        ..
    } = attention;
    let width = hidden / heads;
    let scale = 1.0 / (width as f32).sqrt();
    let (query, query_stride) = operands.query(hidden);
    let (key, stride) = operands.key(hidden);
    let (value, _) = operands.value(hidden);
    let (mut first_query, mut first_key, mut used) = (0, 0, 0);
    for (queries, keys) in lengths(query_offsets).zip(lengths(key_offsets)) {
        if queries == 0 {
            gradients.clear_keys(first_key..first_key + keys, hidden);
            first_key += keys;
            continue;
        }
        let padded = row_length(keys);
        scratch.panels.resize(
            packed_length(width, keys)
                .max(packed_length(keys, width))
                .max(packed_length(queries, width)),
        );
        scratch.dropped.resize(queries * padded);
        scratch.gradient.resize(queries * padded);
        for head in 0..heads {
            let of_queries = first_query * query_stride + head * width;
            let of_keys = first_key * stride + head * width;
            let kept = &probabilities[used..used + queries * padded];
            let outer = Matrix::rows(
                &context_gradient[first_query * hidden + head * width..],
                hidden,
            );
            precision.pack(
                Matrix::columns(&value[of_keys..], stride),
                width,
                keys,
                &mut scratch.panels,
            );
            precision.multiply(
                queries,
                width,
                keys,
                outer,
                &scratch.panels,
                &mut scratch.gradient,
                padded,
                Write::Replace,
            );
            vectorised(SoftmaxBackward {
                probabilities: kept,
                gradient: &mut scratch.gradient,
                rows: queries,
                padded,
                length: keys,
                scale,
                dropout_scale: dropout.map_or(1.0, |dropout| dropout.scale),
                dropped: &mut scratch.dropped,
            });
            // target rows = left . right, whose depth is the number of right's rows
            let mut product = |rows: usize,
                               left: Matrix,
                               depth: usize,
                               right: Matrix,
                               (target, target_stride): (&mut [f32], usize),
                               at: usize| {
                precision.pack(right, depth, width, &mut scratch.panels);
                precision.multiply(
                    rows,
                    depth,
                    width,
                    left,
                    &scratch.panels,
                    &mut target[at..],
                    target_stride,
                    Write::Replace,
                );
            };
            let scores = &scratch.gradient;
            product(
                queries,
                Matrix::rows(scores, padded),
                keys,
                Matrix::rows(&key[of_keys..], stride),
                gradients.query(hidden),
                of_queries,
            );
            product(
                keys,
                Matrix::columns(scores, padded),
                queries,
                Matrix::rows(&query[of_queries..], query_stride),
                gradients.key(hidden),
                of_keys,
            );
            product(
                keys,
                Matrix::columns(&scratch.dropped, padded),
                queries,
                outer,
                gradients.value(hidden),
                of_keys,
            );
            used += queries * padded;
        }
        first_query += queries;
        first_key += keys;
    }
}

/// Softmax of scale * scores by rows, in place; `dropped` receives what is left after dropout.
struct Softmax<'a> {
    scores: &'a mut [f32],
    padded: usize,
    length: usize,
    causal: bool,
    scale: f32,
    dropout: Option<Dropout>,
    rows: Rows<'a>,
    /// The sequence's first query and first key.
    first: (usize, usize),
    /// The head and the number of heads.
    head: (u64, u64),
    dropped: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let rows = self
            .scores
            .chunks_exact_mut(self.padded)
            .zip(self.dropped.chunks_exact_mut(self.padded));
        let ((first_query, first_key), (head, heads)) = (self.first, self.head);
        for (i, (row, dropped)) in rows.enumerate() {
            let query = first_query + i;
            let seen = if self.causal {
                self.rows.place(query) - first_key + 1
            } else {
                self.length
            };
            let (row, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            let greatest = largest(row);
            for value in row.iter_mut() {
                *value = exp((*value - greatest) * self.scale);
            }
            let inverse = 1.0 / sum(seen, |j| row[j]);
            match self.dropout {
                None => {
                    for value in row.iter_mut() {
                        *value *= inverse;
                    }
                }
                Some(dropout) => {
                    let key = dropout.row(self.rows.name(query) * heads + head);
                    let (dropped, hidden) = dropped.split_at_mut(seen);
                    hidden.fill(0.0);
                    for (j, (value, dropped)) in row.iter_mut().zip(dropped).enumerate() {
                        let probability = *value * inverse;
                        let keeps = dropout.keeps(key, j as u32);
                        *value = if keeps { probability } else { -probability };
                        *dropped = if keeps {
                            probability * dropout.scale
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
    }
}

/// `gradient` holds the gradient of the dropped probabilities and receives that of the unscaled scores;
/// `dropped` receives the dropped probabilities.
struct SoftmaxBackward<'a> {
    probabilities: &'a [f32],
    gradient: &'a mut [f32],
    rows: usize,
    padded: usize,
    length: usize,
    scale: f32,
    dropout_scale: f32,
    dropped: &'a mut [f32],
}

impl Kernel for SoftmaxBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        for row in 0..self.rows {
            let range = row * self.padded..row * self.padded + self.length;
            let signed = &self.probabilities[range.clone()];
            let gradient = &mut self.gradient[range.clone()];
            let dropped = &mut self.dropped[range];
            for ((signed, gradient), dropped) in signed
                .iter()
                .zip(gradient.iter_mut())
                .zip(dropped.iter_mut())
            {
                let factor = if signed.is_sign_negative() {
                    0.0
                } else {
                    self.dropout_scale
                };
                *gradient *= factor;
                *dropped = signed.abs() * factor;
            }
            let mean = dot(self.length, |j| gradient[j], |j| signed[j].abs());
            for (signed, gradient) in signed.iter().zip(gradient) {
                *gradient = signed.abs() * (*gradient - mean) * self.scale;
            }
        }
    }
}
