//! Layer normalisation (Ba, Kiros and Hinton 2016) fused with what surrounds it in a post-norm transformer:
//! out = LayerNorm(residual + dropout(update + bias)).

use super::dropout::{Dropout, Rows};
use super::lanes::{Kernel, dot, sum};

/// Added to the variance: XLM's choice (facebookresearch/XLM, transformer.py).
pub const EPSILON: f32 = 1e-12;

/// Normalises `row` in place, writes `out = row * scale + shift`, and returns 1 / standard deviation.
#[inline(always)]
pub fn normalise_row(row: &mut [f32], scale: &[f32], shift: &[f32], out: &mut [f32]) -> f32 {
    let width = row.len();
    let (scale, shift, out) = (&scale[..width], &shift[..width], &mut out[..width]);
    let mean = sum(width, |i| row[i]) / width as f32;
    for value in row.iter_mut() {
        *value -= mean;
    }
    let variance = dot(width, |i| row[i], |i| row[i]) / width as f32;
    let inverse = 1.0 / (variance + EPSILON).sqrt();
    for i in 0..width {
        row[i] *= inverse;
        out[i] = row[i].mul_add(scale[i], shift[i]);
    }
    inverse
}

/// Turns the gradient of a normalised row's output into that of its input, in place; adds to those of scale and shift.
#[inline(always)]
pub fn normalise_row_backward(
    gradient: &mut [f32],
    normalised: &[f32],
    inverse: f32,
    scale: &[f32],
    scale_gradient: &mut [f32],
    shift_gradient: &mut [f32],
) {
    let width = gradient.len();
    let (normalised, scale) = (&normalised[..width], &scale[..width]);
    let (scale_gradient, shift_gradient) =
        (&mut scale_gradient[..width], &mut shift_gradient[..width]);
    for i in 0..width {
        scale_gradient[i] = gradient[i].mul_add(normalised[i], scale_gradient[i]);
        shift_gradient[i] += gradient[i];
        gradient[i] *= scale[i];
    }
    let mean = sum(width, |i| gradient[i]) / width as f32;
    let slope = dot(width, |i| gradient[i], |i| normalised[i]) / width as f32;
    for i in 0..width {
        gradient[i] = inverse * normalised[i].mul_add(-slope, gradient[i] - mean);
    }
}

/// The fused forward; rows have the length of `bias`.
pub struct NormaliseResidual<'a> {
    pub residual: &'a [f32],
    /// Output of the sublayer's last product, without its bias.
    pub update: &'a [f32],
    pub bias: &'a [f32],
    pub dropout: Option<Dropout>,
    pub rows: Rows<'a>,
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    /// Kept for the backward: the normalised rows and 1 / standard deviation of each.
    pub normalised: &'a mut [f32],
    pub inverse: &'a mut [f32],
    pub out: &'a mut [f32],
}

impl Kernel for NormaliseResidual<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.bias.len();
        for (row, inverse) in self.inverse.iter_mut().enumerate() {
            let range = row * width..(row + 1) * width;
            let residual = &self.residual[range.clone()];
            let update = &self.update[range.clone()];
            let bias = &self.bias[..width];
            let normalised = &mut self.normalised[range.clone()];
            match self.dropout {
                Some(dropout) => {
                    let key = dropout.row(self.rows.name(row));
                    for i in 0..width {
                        let factor = dropout.factor(key, i as u32);
                        normalised[i] = (update[i] + bias[i]).mul_add(factor, residual[i]);
                    }
                }
                None => {
                    for i in 0..width {
                        normalised[i] = residual[i] + (update[i] + bias[i]);
                    }
                }
            }
            *inverse = normalise_row(normalised, self.scale, self.shift, &mut self.out[range]);
        }
    }
}

/// The fused backward. `gradient` holds the output's gradient and receives the residual's; `update_gradient`
/// receives the update's. The three parameter gradients are overwritten.
pub struct NormaliseResidualBackward<'a> {
    pub gradient: &'a mut [f32],
    pub normalised: &'a [f32],
    pub inverse: &'a [f32],
    pub dropout: Option<Dropout>,
    pub rows: Rows<'a>,
    pub scale: &'a [f32],
    pub update_gradient: &'a mut [f32],
    pub bias_gradient: &'a mut [f32],
    pub scale_gradient: &'a mut [f32],
    pub shift_gradient: &'a mut [f32],
}

impl Kernel for NormaliseResidualBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let width = self.bias_gradient.len();
        self.bias_gradient.fill(0.0);
        self.scale_gradient.fill(0.0);
        self.shift_gradient.fill(0.0);
        for (row, &inverse) in self.inverse.iter().enumerate() {
            let range = row * width..(row + 1) * width;
            let gradient = &mut self.gradient[range.clone()];
            let normalised = &self.normalised[range.clone()];
            normalise_row_backward(
                gradient,
                normalised,
                inverse,
                self.scale,
                self.scale_gradient,
                self.shift_gradient,
            );
            let update = &mut self.update_gradient[range];
            let bias = &mut self.bias_gradient[..width];
            match self.dropout {
                Some(dropout) => {
                    let key = dropout.row(self.rows.name(row));
                    for i in 0..width {
                        update[i] = gradient[i] * dropout.factor(key, i as u32);
                        bias[i] += update[i];
                    }
                }
                None => {
                    update.copy_from_slice(gradient);
                    for i in 0..width {
                        bias[i] += gradient[i];
                    }
                }
            }
        }
    }
}

/// Sums of columns: `sums[f] = sum over t of values[t, f]`; the gradient of a bias.
pub struct ColumnSums<'a> {
    pub values: &'a [f32],
    pub sums: &'a mut [f32],
}

impl Kernel for ColumnSums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        self.sums.fill(0.0);
        for row in self.values.chunks_exact(self.sums.len()) {
            for (sum, value) in self.sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}

/// `target += source`, element by element.
pub struct AddInto<'a> {
    pub target: &'a mut [f32],
    pub source: &'a [f32],
}

impl Kernel for AddInto<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        for (target, source) in self.target.iter_mut().zip(self.source) {
            *target += source;
        }
    }
}
