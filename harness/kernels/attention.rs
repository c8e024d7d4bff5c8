//! Scaled dot-product self-attention (Vaswani et al. 2017) over packed sequences, each by itself.
//!
//! Probabilities are kept for the backward; their sign bit says that dropout dropped them, so that the mask is
//! computed once.

use super::buffer::Buffer;
use super::dropout::Dropout;
use super::lanes::{Kernel, LANES, dot, exp, largest, sum, vectorised};
use super::matmul::{Matrix, Precision, Write, packed_length};

/// What the attention of one layer works on: packed rows of [query | key | value], each `hidden` wide.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub hidden: usize,
    pub heads: usize,
    /// A query sees the keys up to its own position only.
    pub causal: bool,
    /// Sequence s holds the rows offsets[s] - offsets[0] .. offsets[s + 1] - offsets[0].
    pub offsets: &'a [u32],
    pub dropout: Option<Dropout>,
    /// Dropout's name for row 0.
    pub first_row: u64,
    pub precision: Precision,
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
pub fn probabilities_length(heads: usize, offsets: &[u32]) -> usize {
    lengths(offsets)
        .map(|length| heads * length * row_length(length))
        .sum()
}

fn lengths(offsets: &[u32]) -> impl Iterator<Item = usize> {
    offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
}

/// context[t, :] = for each head, the mean of its values weighted by softmax(query . key / sqrt(head width)).
pub fn forward(
    attention: Attention,
    projected: &[f32],
    probabilities: &mut [f32],
    context: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let Attention {
        hidden,
        heads,
        causal,
        offsets,
        dropout,
        first_row,
        precision,
    } = attention;
    let width = hidden / heads;
    let stride = 3 * hidden;
    let scale = 1.0 / (width as f32).sqrt();
    let (mut start, mut used) = (0, 0);
    for length in lengths(offsets) {
        let padded = row_length(length);
        scratch
            .panels
            .resize(packed_length(width, length).max(packed_length(length, width)));
        scratch.dropped.resize(length * padded);
        for head in 0..heads {
            let at = start * stride + head * width;
            let query = Matrix::rows(&projected[at..], stride);
            let scores = &mut probabilities[used..used + length * padded];
            precision.pack(
                Matrix::columns(&projected[at + hidden..], stride),
                width,
                length,
                &mut scratch.panels,
            );
            precision.multiply(
                length,
                width,
                length,
                query,
                &scratch.panels,
                scores,
                padded,
                Write::Replace,
            );
            vectorised(Softmax {
                scores,
                padded,
                length,
                causal,
                scale,
                dropout,
                first_row: (first_row + start as u64) * heads as u64 + head as u64,
                row_step: heads as u64,
                dropped: &mut scratch.dropped,
            });
            let weights = if dropout.is_some() {
                &scratch.dropped[..]
            } else {
                &*scores
            };
            precision.pack(
                Matrix::rows(&projected[at + 2 * hidden..], stride),
                length,
                width,
                &mut scratch.panels,
            );
            precision.multiply(
                length,
                length,
                width,
                Matrix::rows(weights, padded),
                &scratch.panels,
                &mut context[start * hidden + head * width..],
                hidden,
                Write::Replace,
            );
            used += length * padded;
        }
        start += length;
    }
}

/// projected_gradient = gradient of the loss in [query | key | value], from that in the context.
pub fn backward(
    attention: Attention,
    projected: &[f32],
    probabilities: &[f32],
    context_gradient: &[f32],
    projected_gradient: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let Attention {
        hidden,
        heads,
        offsets,
        dropout,
        precision,
        ..
    } = attention;
    let width = hidden / heads;
    let stride = 3 * hidden;
    let scale = 1.0 / (width as f32).sqrt();
    let (mut start, mut used) = (0, 0);
    for length in lengths(offsets) {
        let padded = row_length(length);
        scratch
            .panels
            .resize(packed_length(width, length).max(packed_length(length, width)));
        scratch.dropped.resize(length * padded);
        scratch.gradient.resize(length * padded);
        for head in 0..heads {
            let at = start * stride + head * width;
            let (query, key, value) = (at, at + hidden, at + 2 * hidden);
            let kept = &probabilities[used..used + length * padded];
            let outer = Matrix::rows(&context_gradient[start * hidden + head * width..], hidden);
            precision.pack(
                Matrix::columns(&projected[value..], stride),
                width,
                length,
                &mut scratch.panels,
            );
            precision.multiply(
                length,
                width,
                length,
                outer,
                &scratch.panels,
                &mut scratch.gradient,
                padded,
                Write::Replace,
            );
            vectorised(SoftmaxBackward {
                probabilities: kept,
                gradient: &mut scratch.gradient,
                padded,
                length,
                scale,
                dropout_scale: dropout.map_or(1.0, |dropout| dropout.scale),
                dropped: &mut scratch.dropped,
            });
            let mut product = |left: Matrix, right: Matrix, target: usize| {
                precision.pack(right, length, width, &mut scratch.panels);
                precision.multiply(
                    length,
                    length,
                    width,
                    left,
                    &scratch.panels,
                    &mut projected_gradient[target..],
                    stride,
                    Write::Replace,
                );
            };
            let scores = &scratch.gradient;
            product(
                Matrix::rows(scores, padded),
                Matrix::rows(&projected[key..], stride),
                query,
            );
            product(
                Matrix::columns(scores, padded),
                Matrix::rows(&projected[query..], stride),
                key,
            );
            product(Matrix::columns(&scratch.dropped, padded), outer, value);
            used += length * padded;
        }
        start += length;
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
    first_row: u64,
    row_step: u64,
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
        for (i, (row, dropped)) in rows.enumerate() {
            let seen = if self.causal { i + 1 } else { self.length };
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
                    let key = dropout.row(self.first_row + i as u64 * self.row_step);
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
        for row in 0..self.length {
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
