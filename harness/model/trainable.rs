//! Which parameters a training changes: gradients of frozen ones are not computed where a whole block is frozen, and the
//! backward ends at the lowest layer that learns.

use super::layout::{Entry, Layout};

/// Trained or frozen, for every parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainable {
    /// In the order of the layout's entries.
    entries: Vec<bool>,
    /// In the order of [`super::trunk::gradient_blocks`].
    blocks: Vec<bool>,
    /// Whether a table of embeddings is trained, as far as lookups of it go.
    tables: bool,
    /// The lowest layer that the backward has to reach, or `None` when it has to reach the embeddings.
    lowest_layer: Option<usize>,
}

impl Trainable {
    /// All but those that `frozen` names.
    pub fn except(layout: &Layout, frozen: impl Fn(&str) -> bool) -> Trainable {
        let entries: Vec<bool> = layout
            .entries
            .iter()
            .map(|entry| !frozen(&entry.name))
            .collect();
        let within = |start: usize, end: usize| {
            let mut of_block = layout.entries.iter().zip(&entries);
            of_block.any(|(entry, trained)| {
                *trained && entry.range.start >= start && entry.range.end <= end
            })
        };
        let blocks: Vec<bool> = super::trunk::gradient_blocks(layout)
            .iter()
            .map(|block| within(block.start, block.end))
            .collect();
        let tables = [
            Some(&layout.token),
            Some(&layout.position),
            layout.language.as_ref(),
        ];
        let tables = tables
            .into_iter()
            .flatten()
            .any(|table| within(table.start, table.end));
        let norm = &layout.embedding_norm_block;
        let lowest_layer = if tables || within(norm.start, norm.end) {
            None
        } else {
            let trained = |layer: &super::layout::Layer| {
                within(layer.attention_block.start, layer.feed_forward_block.end)
            };
            Some(
                layout
                    .layers
                    .iter()
                    .position(trained)
                    .unwrap_or(layout.layers.len()),
            )
        };
        Trainable {
            entries,
            blocks,
            tables,
            lowest_layer,
        }
    }

    /// Whether a block has a parameter that is trained.
    pub fn block(&self, block: usize) -> bool {
        self.blocks[block]
    }

    /// Whether lookups train a table of embeddings.
    pub fn tables(&self) -> bool {
        self.tables
    }

    /// Whether the backward has to reach the embeddings.
    pub fn reaches_embeddings(&self) -> bool {
        self.lowest_layer.is_none()
    }

    /// The lowest layer that the backward has to pass through.
    pub fn lowest_layer(&self) -> usize {
        self.lowest_layer.unwrap_or(0)
    }

    /// Every parameter with whether it is trained.
    pub fn entries<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = (&'a Entry, bool)> {
        layout.entries.iter().zip(self.entries.iter().copied())
    }
}
