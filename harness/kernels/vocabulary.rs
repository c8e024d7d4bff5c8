//! Cross-entropy over the vocabulary with the output tied to the token table, at predicted positions only.
//!
//! Logits are computed transposed, [vocabulary][32 targets], so that the table is read in place and the softmax of
//! 32 targets runs down the lanes; loss and gradient come from one block that is then reused.

use super::buffer::Buffer;
use super::lanes::{Kernel, LANES, exp, vectorised};
use super::matmul::{Matrix, PANEL, Write, multiply, multiply_lines, pack, packed_length};

/// Values in a block of logits that we aim at: 4 MiB per thread.
const BLOCK: usize = 1 << 20;

/// Rows of the table that stay in the cache while several panels pass over them.
const TABLE_ROWS: usize = 256;

/// The output layer: logits = states . table^T + bias.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// [vocabulary, hidden]
    pub table: &'a [f32],
    /// [vocabulary]
    pub bias: &'a [f32],
    pub hidden: usize,
}

/// Buffers that hold nothing between shards.
#[derive(Default)]
pub struct VocabularyScratch {
    /// Panels of logits, later of their gradient: [panel][vocabulary][width].
    logits: Buffer,
    panels: Buffer,
    transposed: Buffer,
    /// States packed as right operands, a panel of targets behind the other.
    sums: Buffer,
}

/// What a set of targets adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSum {
    /// Sum of -ln p(label), in nats.
    pub nats: f64,
    pub targets: u64,
    /// Targets whose label has the highest logit (the first among equals).
    pub correct: u64,
}

impl LossSum {
    /// Nats per target; NaN without targets.
    pub fn mean(&self) -> f64 {
        self.nats / self.targets as f64
    }

    pub fn add(&mut self, other: LossSum) {
        self.nats += other.nats;
        self.targets += other.targets;
        self.correct += other.correct;
    }
}

/// Targets handled together: whole panels.
pub fn block_rows(vocabulary: usize) -> usize {
    (BLOCK / (PANEL * vocabulary.max(1))).max(1) * PANEL
}

/// Panels of `count` targets: index of the first target, and width.
fn panels(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count)
        .step_by(PANEL)
        .map(move |first| (first, if count - first > LANES { PANEL } else { LANES }))
}

/// Loss of at most [`block_rows`] targets; leaves the logits' gradient times `weight` in `scratch`.
/// `states` is [targets, hidden].
pub fn loss(
    output: Output,
    states: &[f32],
    labels: &[u32],
    weight: f32,
    scratch: &mut VocabularyScratch,
) -> LossSum {
    let (hidden, vocabulary, count) = (output.hidden, output.bias.len(), labels.len());
    scratch.panels.resize(packed_length(hidden, count));
    scratch
        .logits
        .resize(vocabulary * count.next_multiple_of(LANES));
    pack(
        Matrix::columns(states, hidden),
        hidden,
        count,
        &mut scratch.panels,
    );
    for first_row in (0..vocabulary).step_by(TABLE_ROWS) {
        let rows = TABLE_ROWS.min(vocabulary - first_row);
        for (first, width) in panels(count) {
            multiply(
                rows,
                hidden,
                width,
                Matrix::rows(&output.table[first_row * hidden..], hidden),
                &scratch.panels[first * hidden..],
                &mut scratch.logits[first * vocabulary + first_row * width..],
                width,
                Write::Replace,
            );
        }
    }
    let mut total = LossSum::default();
    for (first, width) in panels(count) {
        let labels = &labels[first..count.min(first + width)];
        let logits =
            &mut scratch.logits[first * vocabulary..first * vocabulary + width * vocabulary];
        for half in 0..width / LANES {
            let end = labels.len().min((half + 1) * LANES);
            if half * LANES < end {
                total.add(vectorised(PanelLoss {
                    logits,
                    width,
                    column: half * LANES,
                    bias: output.bias,
                    labels: &labels[half * LANES..end],
                    weight,
                }));
            } else {
                for line in logits.chunks_exact_mut(width) {
                    line[half * LANES..].fill(0.0);
                }
            }
        }
    }
    total
}

/// Sixteen columns of a panel: logits become weight * (softmax - one hot), unused lanes zero.
struct PanelLoss<'a> {
    logits: &'a mut [f32],
    width: usize,
    column: usize,
    bias: &'a [f32],
    labels: &'a [u32],
    weight: f32,
}

impl Kernel for PanelLoss<'_> {
    type Output = LossSum;
    #[inline(always)]
    fn run<const ROWS: usize>(self) -> LossSum {
        let column = self.column;
        let mut greatest = [f32::NEG_INFINITY; LANES];
        let mut best = [0u32; LANES];
        for (v, (line, bias)) in self
            .logits
            .chunks_exact_mut(self.width)
            .zip(self.bias)
            .enumerate()
        {
            let Some(line) = line[column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            for lane in 0..LANES {
                line[lane] += bias;
                let better = line[lane] > greatest[lane];
                greatest[lane] = if better { line[lane] } else { greatest[lane] };
                best[lane] = if better { v as u32 } else { best[lane] };
            }
        }
        let mut of_label = [0f32; LANES];
        for (lane, &label) in self.labels.iter().enumerate() {
            of_label[lane] = self.logits[label as usize * self.width + column + lane];
        }
        let mut sums = [0f32; LANES];
        for line in self.logits.chunks_exact_mut(self.width) {
            let Some(line) = line[column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            for lane in 0..LANES {
                line[lane] = exp(line[lane] - greatest[lane]);
                sums[lane] += line[lane];
            }
        }
        // Copies: indexing by a variable would keep the lanes out of registers above.
        let (sums, greatest, best) = (sums, greatest, best);
        let mut factors = [0f32; LANES];
        let mut total = LossSum::default();
        for (lane, &label) in self.labels.iter().enumerate() {
            factors[lane] = self.weight / sums[lane];
            total.nats +=
                f64::from(sums[lane]).ln() + f64::from(greatest[lane]) - f64::from(of_label[lane]);
            total.targets += 1;
            total.correct += u64::from(best[lane] == label);
        }
        let factors = factors;
        for line in self.logits.chunks_exact_mut(self.width) {
            let Some(line) = line[column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            for lane in 0..LANES {
                line[lane] *= factors[lane];
            }
        }
        for (lane, &label) in self.labels.iter().enumerate() {
            self.logits[label as usize * self.width + column + lane] -= self.weight;
        }
        total
    }
}

/// After [`loss`]: `states_gradient` [targets, hidden] is overwritten.
pub fn states_gradient(
    output: Output,
    count: usize,
    states_gradient: &mut [f32],
    scratch: &mut VocabularyScratch,
) {
    let (hidden, vocabulary) = (output.hidden, output.bias.len());
    let padded = count.next_multiple_of(LANES);
    scratch.transposed.clear_to(hidden * padded);
    for first_row in (0..vocabulary).step_by(TABLE_ROWS) {
        let rows = TABLE_ROWS.min(vocabulary - first_row);
        multiply_lines(
            hidden,
            first_row..first_row + rows,
            padded,
            Matrix::columns(&output.table[first_row * hidden..], hidden),
            &scratch.logits,
            vocabulary,
            &mut scratch.transposed,
            padded,
            Write::Add,
        );
    }
    for (target, row) in states_gradient.chunks_exact_mut(hidden).enumerate() {
        for (value, line) in row.iter_mut().zip(scratch.transposed.chunks_exact(padded)) {
            *value = line[target];
        }
    }
}

/// After [`loss`]: adds the gradients of the table and of the bias.
pub fn add_table_gradient(
    output: Output,
    states: &[f32],
    count: usize,
    table_gradient: &mut [f32],
    bias_gradient: &mut [f32],
    scratch: &mut VocabularyScratch,
) {
    let (hidden, vocabulary) = (output.hidden, output.bias.len());
    let whole = packed_length(PANEL, hidden);
    scratch.sums.resize(count.div_ceil(PANEL) * whole);
    for ((first, width), packed) in panels(count).zip(scratch.sums.chunks_exact_mut(whole)) {
        let states = Matrix::rows(&states[first * hidden..], hidden);
        pack(states, width.min(count - first), hidden, packed);
    }
    // Rows of the table stay in the cache while all panels add to them.
    for first_row in (0..vocabulary).step_by(TABLE_ROWS) {
        let rows = first_row..vocabulary.min(first_row + TABLE_ROWS);
        for ((first, width), packed) in panels(count).zip(scratch.sums.chunks_exact(whole)) {
            let logits =
                &scratch.logits[first * vocabulary + rows.start * width..][..rows.len() * width];
            multiply(
                rows.len(),
                width.min(count - first),
                hidden,
                Matrix::rows(logits, width),
                packed,
                &mut table_gradient[rows.start * hidden..],
                hidden,
                Write::Add,
            );
            vectorised(RowSums {
                values: logits,
                width,
                sums: &mut bias_gradient[rows.clone()],
            });
        }
    }
}

/// sums[v] += sum over columns of values[v, column].
struct RowSums<'a> {
    values: &'a [f32],
    width: usize,
    sums: &'a mut [f32],
}

impl Kernel for RowSums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        for (row, total) in self.values.chunks_exact(self.width).zip(self.sums) {
            *total += super::lanes::sum(self.width, |i| row[i]);
        }
    }
}
