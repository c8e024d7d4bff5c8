//! The sum of token, position and language embeddings, normalised and dropped out (Lample and Conneau 2019).

use super::dropout::Dropout;
use super::lanes::Kernel;
use super::normalise::{normalise_row, normalise_row_backward};

/// A table of rows and the row that each token of a shard takes.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    pub table: &'a [f32],
    pub indices: &'a [u32],
}

/// out = dropout(LayerNorm(sum of lookups)).
pub struct NormaliseEmbeddings<'a> {
    pub token: Lookup<'a>,
    pub position: Lookup<'a>,
    pub language: Option<Lookup<'a>>,
    pub dropout: Option<Dropout>,
    pub first_row: u64,
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub normalised: &'a mut [f32],
    pub inverse: &'a mut [f32],
    pub out: &'a mut [f32],
}

impl Kernel for NormaliseEmbeddings<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.scale.len();
        let line = |lookup: Lookup<'_>, row: usize| {
            let start = lookup.indices[row] as usize * width;
            start..start + width
        };
        for (row, inverse) in self.inverse.iter_mut().enumerate() {
            let range = row * width..(row + 1) * width;
            let normalised = &mut self.normalised[range.clone()];
            let token = &self.token.table[line(self.token, row)];
            let position = &self.position.table[line(self.position, row)];
            for i in 0..width {
                normalised[i] = token[i] + position[i];
            }
            if let Some(lookup) = self.language {
                let language = &lookup.table[line(lookup, row)];
                for i in 0..width {
                    normalised[i] += language[i];
                }
            }
            let out = &mut self.out[range];
            *inverse = normalise_row(normalised, self.scale, self.shift, out);
            if let Some(dropout) = self.dropout {
                let key = dropout.row(self.first_row + row as u64);
                for (i, value) in out.iter_mut().enumerate() {
                    *value *= dropout.factor(key, i as u32);
                }
            }
        }
    }
}

/// Turns the gradient of the output into that of the sum of lookups, in place; overwrites those of scale and shift.
pub struct NormaliseEmbeddingsBackward<'a> {
    pub gradient: &'a mut [f32],
    pub normalised: &'a [f32],
    pub inverse: &'a [f32],
    pub dropout: Option<Dropout>,
    pub first_row: u64,
    pub scale: &'a [f32],
    pub scale_gradient: &'a mut [f32],
    pub shift_gradient: &'a mut [f32],
}

impl Kernel for NormaliseEmbeddingsBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.scale.len();
        self.scale_gradient.fill(0.0);
        self.shift_gradient.fill(0.0);
        for (row, &inverse) in self.inverse.iter().enumerate() {
            let range = row * width..(row + 1) * width;
            let gradient = &mut self.gradient[range.clone()];
            if let Some(dropout) = self.dropout {
                let key = dropout.row(self.first_row + row as u64);
                for (i, value) in gradient.iter_mut().enumerate() {
                    *value *= dropout.factor(key, i as u32);
                }
            }
            normalise_row_backward(
                gradient,
                &self.normalised[range],
                inverse,
                self.scale,
                self.scale_gradient,
                self.shift_gradient,
            );
        }
    }
}

/// table_gradient[indices[t]] += gradient[t], in the order of t; rows whose index is `skip` add nothing.
pub struct Scatter<'a> {
    pub gradient: &'a [f32],
    pub indices: &'a [u32],
    pub skip: Option<u32>,
    pub width: usize,
    pub table_gradient: &'a mut [f32],
}

impl Kernel for Scatter<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        for (row, &index) in self.gradient.chunks_exact(self.width).zip(self.indices) {
            if Some(index) == self.skip {
                continue;
            }
            let start = index as usize * self.width;
            let target = &mut self.table_gradient[start..start + self.width];
            for (target, value) in target.iter_mut().zip(row) {
                *target += value;
            }
        }
    }
}
