//! Cross-entropy over the vocabulary with the output tied to the token table, at predicted positions only.
//!
//! Logits are computed transposed, [vocabulary][32 targets], so that the table is read in place and the softmax of
//! 32 targets runs down the lanes; loss and gradient come from one block that is then reused.

use super::buffer::Buffer;
use super::lanes::{Kernel, LANES, Lanes, exp, vectorised};
use super::matmul::{Matrix, PANEL, Precision, Write, packed_length, rounded};

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
    pub precision: Precision,
}

/// Buffers that hold nothing between shards.
#[derive(Default)]
pub struct VocabularyScratch {
    /// Panels of logits, then of their powers, later of their gradient: [panel][vocabulary][width].
    logits: Buffer,
    panels: Buffer,
    transposed: Buffer,
    /// States packed as right operands, a panel of targets behind the other.
    packed_states: Buffer,
    halves: Vec<Half>,
}

/// What is known of sixteen targets.
#[derive(Clone, Copy)]
struct Half {
    /// The highest logit and its token, the first among equals.
    greatest: Lanes,
    best: [u32; LANES],
    /// What turns powers into the gradient: weight over their sum; zero for lanes without a target.
    factors: Lanes,
    labels: [u32; LANES],
    /// Targets there are, up to sixteen.
    used: usize,
    weight: f32,
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

/// Loss of at most [`block_rows`] targets; leaves in `scratch` what [`states_gradient`] makes the gradient of, times `weight`.
/// `states` is [targets, hidden].
///
/// A chunk of rows is looked at while it is in the cache: once after its product, once for its powers, once in each gradient.
pub fn loss(
    output: Output,
    states: &[f32],
    labels: &[u32],
    weight: f32,
    scratch: &mut VocabularyScratch,
) -> LossSum {
    let vocabulary = output.bias.len();
    logits(output, states, labels.len(), scratch);
    for (half, labels) in scratch.halves.iter_mut().zip(labels.chunks(LANES)) {
        half.labels[..labels.len()].copy_from_slice(labels);
        half.weight = weight;
    }
    let mut total = LossSum::default();
    for (first, width) in panels(labels.len()) {
        let logits = &mut scratch.logits[first * vocabulary..(first + width) * vocabulary];
        let halves = scratch.halves[first / LANES..]
            .iter_mut()
            .take(width / LANES);
        for (index, half) in halves.enumerate() {
            total.add(vectorised(Powers {
                logits,
                width,
                column: index * LANES,
                half,
            }));
        }
    }
    total
}

/// Tokens that may come next after a state, the most probable first, with ln p(token) in nats; of equal ones the lower token is
/// first.
pub type Candidates = Vec<(u32, f64)>;

/// The `count` most probable tokens after each of at most [`block_rows`] states, [states, hidden].
pub fn candidates(
    output: Output,
    states: &[f32],
    count: usize,
    scratch: &mut VocabularyScratch,
) -> Vec<Candidates> {
    let (vocabulary, rows) = (output.bias.len(), states.len() / output.hidden.max(1));
    logits(output, states, rows, scratch);
    let mut found = vec![Candidates::default(); rows];
    for (first, width) in panels(rows) {
        let logits = &scratch.logits[first * vocabulary..(first + width) * vocabulary];
        for index in 0..width / LANES {
            let number = first / LANES + index;
            let Some(half) = scratch.halves.get(number) else {
                continue;
            };
            vectorised(Choose {
                logits,
                width,
                column: index * LANES,
                half,
                count: count.min(vocabulary),
                found: &mut found[number * LANES..number * LANES + half.used],
            });
        }
    }
    found
}

/// Sixteen columns of a panel of logits: the most probable tokens of each.
struct Choose<'a> {
    logits: &'a [f32],
    width: usize,
    column: usize,
    half: &'a Half,
    count: usize,
    found: &'a mut [Candidates],
}

impl Kernel for Choose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let greatest = self.half.greatest;
        let mut sums = [0f32; LANES];
        // What a logit has to exceed to be among the best: the least of those found, when they are enough.
        let mut thresholds = [f32::NEG_INFINITY; LANES];
        let mut best: [Vec<(u32, f32)>; LANES] = std::array::from_fn(|_| Vec::new());
        for (token, line) in self.logits.chunks_exact(self.width).enumerate() {
            let Some(line) = line[self.column..].first_chunk::<LANES>() else {
                continue;
            };
            let mut any = false;
            for lane in 0..LANES {
                sums[lane] += exp(line[lane] - greatest[lane]);
                any |= line[lane] > thresholds[lane];
            }
            if !any {
                continue;
            }
            for lane in 0..self.found.len() {
                if line[lane] > thresholds[lane] {
                    let best = &mut best[lane];
                    let place = best.partition_point(|(_, logit)| *logit >= line[lane]);
                    best.insert(place, (token as u32, line[lane]));
                    best.truncate(self.count);
                    if best.len() == self.count
                        && let Some((_, least)) = best.last()
                    {
                        thresholds[lane] = *least;
                    }
                }
            }
        }
        for (lane, found) in self.found.iter_mut().enumerate() {
            let normaliser = f64::from(sums[lane]).ln() + f64::from(greatest[lane]);
            let probable = best[lane].iter();
            *found = probable
                .map(|(token, logit)| (*token, f64::from(*logit) - normaliser))
                .collect();
        }
    }
}

/// Leaves the logits of states in `scratch`, with the highest of each in `halves`.
fn logits(output: Output, states: &[f32], count: usize, scratch: &mut VocabularyScratch) {
    let (hidden, vocabulary) = (output.hidden, output.bias.len());
    scratch.panels.resize(packed_length(hidden, count));
    scratch
        .logits
        .resize(vocabulary * count.next_multiple_of(LANES));
    output.precision.pack(
        Matrix::columns(states, hidden),
        hidden,
        count,
        &mut scratch.panels,
    );
    scratch.halves.clear();
    scratch
        .halves
        .extend((0..count).step_by(LANES).map(|first| Half {
            greatest: [f32::NEG_INFINITY; LANES],
            best: [0; LANES],
            factors: [0.0; LANES],
            labels: [0; LANES],
            used: LANES.min(count - first),
            weight: 0.0,
        }));
    for first_row in (0..vocabulary).step_by(TABLE_ROWS) {
        let rows = TABLE_ROWS.min(vocabulary - first_row);
        for (first, width) in panels(count) {
            let start = first * vocabulary + first_row * width;
            let chunk = &mut scratch.logits[start..start + rows * width];
            output.precision.multiply(
                rows,
                hidden,
                width,
                Matrix::rows(&output.table[first_row * hidden..], hidden),
                &scratch.panels[first * hidden..],
                chunk,
                width,
                Write::Replace,
            );
            let halves = scratch.halves[first / LANES..]
                .iter_mut()
                .take(width / LANES);
            for (index, half) in halves.enumerate() {
                vectorised(AddBias {
                    logits: chunk,
                    width,
                    column: index * LANES,
                    bias: &output.bias[first_row..first_row + rows],
                    first_row: first_row as u32,
                    half,
                });
            }
        }
    }
}

/// Adds the bias to sixteen columns of a chunk of logits, and looks for the highest.
struct AddBias<'a> {
    logits: &'a mut [f32],
    width: usize,
    column: usize,
    bias: &'a [f32],
    first_row: u32,
    half: &'a mut Half,
}

impl Kernel for AddBias<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let (mut greatest, mut best) = (self.half.greatest, self.half.best);
        let lines = self.logits.chunks_exact_mut(self.width).zip(self.bias);
        for (row, (line, bias)) in lines.enumerate() {
            let Some(line) = line[self.column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            let token = self.first_row + row as u32;
            for lane in 0..LANES {
                line[lane] += bias;
                let better = line[lane] > greatest[lane];
                greatest[lane] = if better { line[lane] } else { greatest[lane] };
                best[lane] = if better { token } else { best[lane] };
            }
        }
        (self.half.greatest, self.half.best) = (greatest, best);
    }
}

/// Sixteen columns of a panel: logits become exp(logit - greatest).
struct Powers<'a> {
    logits: &'a mut [f32],
    width: usize,
    column: usize,
    half: &'a mut Half,
}

impl Kernel for Powers<'_> {
    type Output = LossSum;
    #[inline(always)]
    fn run<const ROWS: usize>(self) -> LossSum {
        let (column, width, half) = (self.column, self.width, self.half);
        let labels = &half.labels[..half.used];
        let mut of_label = [0f32; LANES];
        for (lane, &label) in labels.iter().enumerate() {
            of_label[lane] = self.logits[label as usize * width + column + lane];
        }
        let greatest = half.greatest;
        let mut sums = [0f32; LANES];
        for line in self.logits.chunks_exact_mut(width) {
            let Some(line) = line[column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            for lane in 0..LANES {
                line[lane] = exp(line[lane] - greatest[lane]);
                sums[lane] += line[lane];
            }
        }
        // A copy: indexing by a variable would keep the sums out of registers above.
        let sums = sums;
        let mut total = LossSum::default();
        for (lane, &label) in labels.iter().enumerate() {
            half.factors[lane] = half.weight / sums[lane];
            total.nats +=
                f64::from(sums[lane]).ln() + f64::from(greatest[lane]) - f64::from(of_label[lane]);
            total.targets += 1;
            total.correct += u64::from(half.best[lane] == label);
        }
        total
    }
}

/// Sixteen columns of a chunk of rows: powers become weight * (softmax - one hot).
struct Gradient<'a> {
    powers: &'a mut [f32],
    width: usize,
    column: usize,
    first_row: usize,
    half: &'a Half,
    precision: Precision,
}

impl Kernel for Gradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let factors = self.half.factors;
        for line in self.powers.chunks_exact_mut(self.width) {
            let Some(line) = line[self.column..].first_chunk_mut::<LANES>() else {
                continue;
            };
            for lane in 0..LANES {
                line[lane] *= factors[lane];
            }
        }
        let rows = self.first_row..self.first_row + self.powers.len() / self.width;
        for (lane, &label) in self.half.labels[..self.half.used].iter().enumerate() {
            if rows.contains(&(label as usize)) {
                let row = label as usize - self.first_row;
                self.powers[row * self.width + self.column + lane] -= self.half.weight;
            }
        }
        if self.precision == Precision::Bf16 {
            for line in self.powers.chunks_exact_mut(self.width) {
                for value in &mut line[self.column..self.column + LANES] {
                    *value = rounded(*value);
                }
            }
        }
    }
}

/// After [`loss`], once: `states_gradient` [targets, hidden] is overwritten, and the logits' gradient is left in `scratch`.
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
        for (first, width) in panels(count) {
            let start = first * vocabulary + first_row * width;
            let chunk = &mut scratch.logits[start..start + rows * width];
            for column in (0..width).step_by(LANES) {
                vectorised(Gradient {
                    powers: chunk,
                    width,
                    column,
                    first_row,
                    half: &scratch.halves[(first + column) / LANES],
                    precision: output.precision,
                });
            }
        }
        output.precision.multiply_lines(
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
    for (target, row) in states_gradient
        .chunks_exact_mut(hidden)
        .take(count)
        .enumerate()
    {
        for (value, line) in row.iter_mut().zip(scratch.transposed.chunks_exact(padded)) {
            *value = line[target];
        }
    }
}

/// After [`states_gradient`]: adds the gradients of the table and of the bias.
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
    scratch.packed_states.resize(count.div_ceil(PANEL) * whole);
    for ((first, width), packed) in panels(count).zip(scratch.packed_states.chunks_exact_mut(whole))
    {
        let states = Matrix::rows(&states[first * hidden..], hidden);
        output
            .precision
            .pack(states, width.min(count - first), hidden, packed);
    }
    // Rows of the table stay in the cache while all panels add to them.
    for first_row in (0..vocabulary).step_by(TABLE_ROWS) {
        let rows = first_row..vocabulary.min(first_row + TABLE_ROWS);
        for ((first, width), packed) in panels(count).zip(scratch.packed_states.chunks_exact(whole))
        {
            let logits =
                &scratch.logits[first * vocabulary + rows.start * width..][..rows.len() * width];
            output.precision.multiply(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn random(length: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, "vocabulary", 0);
        (0..length).map(|_| random.normal() as f32).collect()
    }

    fn assert_near(ours: &[f32], theirs: &[f64], what: &str) {
        let largest = theirs
            .iter()
            .fold(1e-9f64, |most, value| most.max(value.abs()));
        for (a, b) in ours.iter().zip(theirs) {
            assert!(
                (f64::from(*a) - b).abs() < 1e-5 * largest,
                "{what}: {a} {b} of {largest}"
            );
        }
    }

    /// Numbers of targets around halves, panels and blocks; vocabularies around chunks of rows.
    #[test]
    fn loss_and_gradients_are_those_of_the_definition_whatever_the_numbers() {
        let (hidden, weight) = (5, 0.25f32);
        for (count, vocabulary) in [
            (1, 3),
            (15, 255),
            (16, 256),
            (17, 257),
            (32, 40),
            (33, 600),
            (49, 300),
        ] {
            let (table, bias) = (random(vocabulary * hidden, 1), random(vocabulary, 2));
            let states = random(count * hidden, 3);
            let labels: Vec<u32> = (0..count).map(|t| (7 * t % vocabulary) as u32).collect();
            let output = Output {
                table: &table,
                bias: &bias,
                hidden,
                precision: Precision::F32,
            };
            let mut scratch = VocabularyScratch::default();
            let mut of_states = vec![f32::NAN; count * hidden];
            let (mut of_table, mut of_bias) =
                (vec![0.0; vocabulary * hidden], vec![0.0; vocabulary]);
            let total = loss(output, &states, &labels, weight, &mut scratch);
            states_gradient(output, count, &mut of_states, &mut scratch);
            add_table_gradient(
                output,
                &states,
                count,
                &mut of_table,
                &mut of_bias,
                &mut scratch,
            );

            let (mut nats, mut correct) = (0.0, 0);
            let mut expected_states = vec![0f64; count * hidden];
            let mut expected_table = vec![0f64; vocabulary * hidden];
            let mut expected_bias = vec![0f64; vocabulary];
            for t in 0..count {
                let logits: Vec<f64> = (0..vocabulary)
                    .map(|v| {
                        let products = (0..hidden).map(|h| {
                            f64::from(states[t * hidden + h]) * f64::from(table[v * hidden + h])
                        });
                        products.sum::<f64>() + f64::from(bias[v])
                    })
                    .collect();
                let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
                let label = labels[t] as usize;
                nats += sum.ln() - logits[label];
                correct += u64::from(logits.iter().all(|logit| *logit <= logits[label]));
                for (v, logit) in logits.iter().enumerate() {
                    let one_hot = f64::from(u8::from(v == label));
                    let gradient = f64::from(weight) * (logit.exp() / sum - one_hot);
                    expected_bias[v] += gradient;
                    for h in 0..hidden {
                        expected_states[t * hidden + h] +=
                            gradient * f64::from(table[v * hidden + h]);
                        expected_table[v * hidden + h] +=
                            gradient * f64::from(states[t * hidden + h]);
                    }
                }
            }
            let what = format!("{count} targets, {vocabulary} entries");
            assert!((total.nats - nats).abs() < 1e-5 * nats, "{what}");
            assert_eq!(
                (total.targets, total.correct),
                (count as u64, correct),
                "{what}"
            );
            assert_near(&of_states, &expected_states, &what);
            assert_near(&of_table, &expected_table, &what);
            assert_near(&of_bias, &expected_bias, &what);
        }
    }
}
