//! Which parameters a training changes: gradients of frozen ones are not computed where a whole block is frozen, and the
//! backward ends at the lowest layer that learns.

use std::ops::Range;

use super::layout::{Block, Entry, Layout, Side, Stack};

/// Trained or frozen, for every parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainable {
    /// In the order of the layout's entries.
    entries: Vec<bool>,
    /// In the order of the layout's blocks.
    blocks: Vec<bool>,
    encoder: Reach,
    /// As the encoder's where there is no decoder.
    decoder: Reach,
}

/// How far down a stack its backward goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// Whether lookups train a table of embeddings.
    pub tables: bool,
    /// Whether it has to reach the embeddings.
    pub embeddings: bool,
    /// The lowest layer that it has to pass through.
    pub lowest_layer: usize,
    /// Whether anything of the stack is trained.
    pub any: bool,
}

impl Trainable {
    /// All but those that `frozen` names.
    pub fn except(layout: &Layout, frozen: impl Fn(&str) -> bool) -> Trainable {
        let entries: Vec<bool> = layout
            .entries
            .iter()
            .map(|entry| !frozen(&entry.name))
            .collect();
        let within = |range: &Range<usize>| {
            let mut of_block = layout.entries.iter().zip(&entries);
            of_block.any(|(entry, trained)| {
                *trained && entry.range.start >= range.start && entry.range.end <= range.end
            })
        };
        let blocks: Vec<bool> = layout.blocks.iter().map(within).collect();
        let reach = |stack: &Stack| {
            let tables = [
                Some(&stack.token),
                Some(&stack.position),
                stack.language.as_ref(),
            ];
            let tables = tables.into_iter().flatten().any(within);
            let embeddings = tables || blocks[stack.embedding_block.number];
            let lowest = stack.layers.iter().position(|layer| {
                let first = layer.attention_block.number;
                blocks[first..=layer.feed_forward_block.number].contains(&true)
            });
            Reach {
                tables,
                embeddings,
                lowest_layer: match lowest {
                    _ if embeddings => 0,
                    Some(lowest) => lowest,
                    None => stack.layers.len(),
                },
                any: embeddings || lowest.is_some(),
            }
        };
        let encoder = reach(&layout.encoder);
        let mut decoder = layout.decoder.as_ref().map_or(encoder, reach);
        if layout.decoder.is_some() && encoder.any {
            // The encoder's gradient comes from every layer of the decoder.
            decoder.lowest_layer = 0;
        }
        Trainable {
            entries,
            blocks,
            encoder,
            decoder,
        }
    }

    /// Whether a block has a parameter that is trained.
    pub fn block(&self, block: &Block) -> bool {
        self.blocks[block.number]
    }

    pub fn reach(&self, side: Side) -> Reach {
        match side {
            Side::Encoder => self.encoder,
            Side::Decoder => self.decoder,
        }
    }

    /// Every parameter with whether it is trained.
    pub fn entries<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = (&'a Entry, bool)> {
        layout.entries.iter().zip(self.entries.iter().copied())
    }
}
