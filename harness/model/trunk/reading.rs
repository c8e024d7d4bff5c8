//! Which of the last layer's states are read. Masked language models read those of predicted tokens, a classifier those of
//! first tokens: then the last layer computes no others, neither forward nor backward. Keys and values alone come from all
//! tokens. What is read has the bits that it has among all, and so has every gradient: what is left out are zeros.

use super::{Activations, Scratch, Shard, start_gradient};
use crate::kernels::dropout::Rows;

/// Beyond this share of a shard's rows, choosing costs about what it saves: rows are copied, and their way back through
/// the projection is computed twice. Ours.
const MOST_READ: f64 = 0.5;

/// The share of its rows that the last layer computes where a share of them is read.
pub fn computed_share(read: f64) -> f64 {
    if read > MOST_READ { 1.0 } else { read }
}

/// The rows of a shard whose last states are read.
pub(super) struct Reading {
    /// Ascending, counted from the shard's first.
    rows: Vec<u32>,
    /// As a batch's: where the rows of each sequence start.
    offsets: Vec<u32>,
    /// Whether they are so few that the last layer computes no others.
    chosen: bool,
}

impl Reading {
    pub(super) fn of(shard: &Shard, rows: &[u32]) -> Reading {
        let share = rows.len() as f64 / shard.rows().len() as f64;
        let first = shard.offsets()[0];
        let starts = shard.offsets().iter().map(|offset| offset - first);
        Reading {
            offsets: starts
                .map(|start| rows.partition_point(|&row| row < start) as u32)
                .collect(),
            rows: rows.to_vec(),
            chosen: computed_share(share) < 1.0,
        }
    }
}

/// The rows of its output that a layer computes.
#[derive(Clone, Copy)]
pub(super) struct Computed<'a> {
    pub rows: Rows<'a>,
    /// As a batch's.
    pub offsets: &'a [u32],
}

impl<'a> Computed<'a> {
    /// Of one of the layers that run: all of a shard's, or those that are read of the last.
    pub fn of(
        shard: &Shard<'a>,
        reading: Option<&'a Reading>,
        (index, depth): (usize, usize),
    ) -> Computed<'a> {
        let reading = reading.filter(|reading| reading.chosen && index + 1 == depth);
        Computed {
            rows: Rows {
                first: shard.first_row(),
                chosen: reading.map(|reading| &reading.rows[..]),
            },
            offsets: reading.map_or(shard.offsets(), |reading| &reading.offsets),
        }
    }

    pub fn count(&self) -> usize {
        match self.offsets {
            [first, .., last] => (last - first) as usize,
            _ => 0,
        }
    }
}

/// Copies rows behind each other: out[i, :] = values[rows[i], :].
pub(super) fn gather(values: &[f32], width: usize, rows: &[u32], out: &mut [f32]) {
    for (out, &row) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&values[row as usize * width..][..width]);
    }
}

/// The reverse: out[rows[i], :] = values[i, :].
pub(super) fn scatter(values: &[f32], width: usize, rows: &[u32], out: &mut [f32]) {
    for (values, &row) in values.chunks_exact(width).zip(rows) {
        out[row as usize * width..][..width].copy_from_slice(values);
    }
}

impl Activations {
    /// Copies the last states that the forward was told are read: [rows, hidden].
    pub fn copy_read(&self, width: usize, out: &mut [f32]) {
        let states = self.states(self.depth);
        match &self.reading {
            Some(reading) if !reading.chosen => gather(states, width, &reading.rows, out),
            _ => out.copy_from_slice(states),
        }
    }
}

/// Sets the gradient that [`super::backward`] starts from: of the last states that are read, [rows, hidden]; that of others is zero.
pub fn start_read_gradient(
    activations: &Activations,
    gradient: &[f32],
    width: usize,
    scratch: &mut Scratch,
) {
    let length = activations.states(activations.depth).len();
    match &activations.reading {
        Some(reading) if !reading.chosen => {
            scratch.gradient.clear_to(length);
            scatter(gradient, width, &reading.rows, &mut scratch.gradient);
        }
        _ => start_gradient(Some(gradient), length, scratch),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backward, Source, Stream, backward, forward, start_source_gradient};
    use super::*;
    use crate::kernels::Device;
    use crate::kernels::matmul::Precision;
    use crate::model::layout::Side;
    use crate::model::tickets::Tickets;
    use crate::model::trainable::Trainable;
    use crate::model::{Batch, Direction, Encoder, Model, ModelSettings, Shape};
    use crate::random::Random;

    fn shape(hidden: usize, decoder: bool) -> Shape {
        Shape {
            settings: ModelSettings {
                layers: 2,
                hidden,
                heads: 2,
                feed_forward: 40,
                positions: 16,
                dropout: 0.1,
                attention_dropout: 0.1,
                language_embeddings: true,
            },
            vocabulary: 30,
            languages: 2,
            decoder,
        }
    }

    fn batch(lengths: &[usize], seed: u64) -> Batch {
        let mut random = Random::new(seed, "batch", 0);
        let mut batch = Batch::new();
        for (index, &length) in lengths.iter().enumerate() {
            let tokens: Vec<u32> = (0..length).map(|_| random.below(30) as u32).collect();
            batch.push(&tokens, index as u32 % 2);
        }
        batch
    }

    fn shard<'a>(batch: &'a Batch, source: Option<Source<'a>>) -> Shard<'a> {
        Shard {
            batch,
            // Not from the first: rows are counted from the shard's.
            sequences: 1..batch.sequences(),
            tokens_before: 7,
            source,
        }
    }

    /// What a shard leaves of a loss that reads some rows: their states, and all gradients. `choosing` says whether the layer is
    /// told which.
    fn run(
        encoder: &Encoder,
        (direction, frozen): (Direction, bool),
        rows: &[u32],
        choosing: bool,
    ) -> Vec<Vec<f32>> {
        let hidden = encoder.shape().settings.hidden;
        let own = batch(&[3, 9, 1, 16, 2, 5], 1);
        let sentences = batch(&[2, 4, 7, 1, 8, 3], 2);
        let stream = Some(Stream {
            key: 5,
            step: 3,
            pass: 0,
        });
        let weights = encoder.backward_weights();
        let trainable = Trainable::except(encoder.layout(), |name| {
            frozen && (name.starts_with("embeddings") || name.contains("feed_forward"))
        });
        let mut gradient = vec![0.0; encoder.layout().length];
        let tickets = Tickets::new(&mut gradient, encoder.layout().blocks.clone());
        // Each shard takes each block once; the output layer is passed over.
        let way_back = Backward {
            weights,
            tickets: &tickets,
            turn: 0,
            depth: 2,
            trainable: &trainable,
        };
        let mut scratch = encoder.take_scratch();
        let of_source = encoder.context(Side::Encoder, Direction::Bidirectional, stream);
        let of_sentences = shard(&sentences, None);
        let mut read = Activations::for_training(encoder.shape());
        let source = encoder.shape().decoder.then(|| {
            forward(&of_source, &of_sentences, 2, None, &mut read, &mut scratch);
            Source {
                states: read.states(2),
                offsets: of_sentences.offsets(),
            }
        });
        let context = encoder.context(Side::Decoder, direction, stream);
        let shard = shard(&own, source);
        let mut activations = Activations::for_training(encoder.shape());
        let told = choosing.then_some(rows);
        forward(&context, &shard, 2, told, &mut activations, &mut scratch);
        let mut states = vec![0.0; rows.len() * hidden];
        match &activations.reading {
            None => gather(activations.states(2), hidden, rows, &mut states),
            Some(reading) => {
                assert!(reading.chosen);
                activations.copy_read(hidden, &mut states);
            }
        }
        let outer: Vec<f32> = states.iter().map(|state| state.sin()).collect();
        if choosing {
            start_read_gradient(&activations, &outer, hidden, &mut scratch);
        } else {
            let mut all = vec![0.0; shard.rows().len() * hidden];
            scatter(&outer, hidden, rows, &mut all);
            start_gradient(Some(&all), all.len(), &mut scratch);
        }
        let mut embedding = vec![0.0; shard.rows().len() * hidden];
        let none = |_| None;
        backward(
            &context,
            &shard,
            &activations,
            &way_back,
            none,
            &mut embedding,
            &mut scratch,
        );
        let mut of_sources = vec![0.0; of_sentences.rows().len() * hidden];
        if source.is_some() {
            start_source_gradient(&mut scratch);
            backward(
                &of_source,
                &of_sentences,
                &read,
                &way_back,
                none,
                &mut of_sources,
                &mut scratch,
            );
        }
        drop(tickets);
        vec![states, gradient, embedding, of_sources]
    }

    #[test]
    fn choosing_the_rows_that_are_read_changes_no_bit() {
        // A first, a middle and a last row, a sequence of one token, and sequences without any; and no row at all.
        let chosen: [&[u32]; 3] = [&[0, 4, 5, 8, 9, 13, 32], &[10], &[]];
        for (hidden, decoder) in [(32, false), (24, false), (32, true)] {
            for precision in [Precision::F32, Precision::Bf16] {
                let device = Device::cpu(1);
                let model = Model::initialise(&shape(hidden, decoder), 4);
                let encoder = Encoder::new(model, &device).in_precision(precision);
                for how in [
                    (Direction::Bidirectional, false),
                    (Direction::Causal, false),
                    (Direction::Bidirectional, true),
                ] {
                    for rows in chosen {
                        let all = run(&encoder, how, rows, false);
                        assert_eq!(all, run(&encoder, how, rows, true));
                        let moved = all[1].iter().any(|value| *value != 0.0);
                        assert_eq!(moved, !rows.is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn where_most_rows_are_read_all_are_computed() {
        let batch = batch(&[2, 5, 5], 1);
        let shard = shard(&batch, None);
        assert!(Reading::of(&shard, &[0, 1, 5, 6, 7]).chosen);
        assert!(!Reading::of(&shard, &[0, 1, 2, 5, 6, 7]).chosen);
        assert_eq!(Reading::of(&shard, &[0, 6]).offsets, [0, 1, 2]);
    }
}
