//! A batch in a card's memory.

use std::sync::Arc;

use anyhow::Result;

use crate::kernels::cuda::operations::{SEGMENT, TILE};
use crate::kernels::cuda::{Driver, Memory, bytes_of};
use crate::model::batch::{Batch, Targets};

/// Lookups, offsets, tiles and targets of one batch.
pub struct CardBatch {
    memory: Memory,
    tables: Memory,
    tokens: usize,
    tile_count: usize,
    target_count: usize,
    /// Where the parts lie in the memory, in 32-bit words.
    starts: [usize; 7],
}

/// Which embedding a lookup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Token,
    Position,
    Language,
}

/// The rows that take each entry of a table, for the gradient of the table; addresses.
pub struct Lookups {
    pub order: u64,
    pub segments: u64,
    pub segment_count: usize,
    pub entries: u64,
    pub entry_count: usize,
}

impl CardBatch {
    pub fn new(driver: &Arc<dyn Driver>) -> CardBatch {
        CardBatch {
            memory: Memory::new(driver),
            tables: Memory::new(driver),
            tokens: 0,
            tile_count: 0,
            target_count: 0,
            starts: [0; 7],
        }
    }

    /// Takes the place of what was there.
    pub fn upload(
        &mut self,
        driver: &Arc<dyn Driver>,
        batch: &Batch,
        targets: Option<&Targets>,
    ) -> Result<()> {
        let mut tiles = Vec::new();
        for (sequence, bounds) in batch.offsets.windows(2).enumerate() {
            let length = (bounds[1] - bounds[0]) as usize;
            for start in (0..length).step_by(TILE) {
                tiles.extend([sequence as u32, start as u32]);
            }
        }
        self.tile_count = tiles.len() / 2;
        self.tokens = batch.token_count();
        self.target_count = targets.map_or(0, |targets| targets.labels.len());
        let (indices, labels) = targets.map_or((&[][..], &[][..]), |targets| {
            (&targets.indices[..], &targets.labels[..])
        });
        let mut words = Vec::new();
        let parts = [
            &batch.tokens[..],
            &batch.positions,
            &batch.languages,
            &batch.offsets,
            &tiles,
            indices,
            labels,
        ];
        for (start, part) in self.starts.iter_mut().zip(parts) {
            // Pairs are read at once.
            words.resize(words.len().next_multiple_of(4), 0);
            *start = words.len();
            words.extend_from_slice(part);
        }
        let address = self.memory.reserve(4 * words.len())?;
        // Safety: just reserved.
        unsafe { driver.upload(address, bytes_of(&words)) }
    }

    fn part(&self, number: usize) -> u64 {
        self.memory.address() + 4 * self.starts[number] as u64
    }

    pub fn lookups(&self, table: Table) -> u64 {
        self.part(match table {
            Table::Token => 0,
            Table::Position => 1,
            Table::Language => 2,
        })
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub fn offsets(&self) -> u64 {
        self.part(3)
    }

    /// Address and number.
    pub fn tiles(&self) -> (u64, usize) {
        (self.part(4), self.tile_count)
    }

    pub fn target_count(&self) -> usize {
        self.target_count
    }

    pub fn target_indices(&self) -> u64 {
        self.part(5)
    }

    pub fn labels(&self) -> u64 {
        self.part(6)
    }

    /// Sorts the rows of each list of indices by entry, in segments; rows whose index is the list's `skip` are left out.
    pub fn upload_tables(
        &mut self,
        driver: &Arc<dyn Driver>,
        lists: &[(&[u32], Option<u32>)],
    ) -> Result<Vec<Lookups>> {
        let mut words: Vec<u32> = Vec::new();
        let mut starts = Vec::new();
        for (indices, skip) in lists {
            let mut rows: Vec<u64> = indices
                .iter()
                .enumerate()
                .filter(|(_, index)| Some(**index) != *skip)
                .map(|(row, index)| u64::from(*index) << 32 | row as u64)
                .collect();
            rows.sort_unstable();
            let (mut segments, mut entries) = (Vec::new(), Vec::new());
            for of_entry in rows.chunk_by(|a, b| a >> 32 == b >> 32) {
                let first = of_entry.as_ptr_range().start;
                // The place of the chunk within the rows.
                let start = (first as usize - rows.as_ptr() as usize) / size_of::<u64>();
                entries.extend([(of_entry[0] >> 32) as u32, (segments.len() / 2) as u32]);
                for from in (0..of_entry.len()).step_by(SEGMENT) {
                    let to = of_entry.len().min(from + SEGMENT);
                    segments.extend([(start + from) as u32, (start + to) as u32]);
                }
            }
            let (segment_count, entry_count) = (segments.len() / 2, entries.len() / 2);
            entries.extend([0, segment_count as u32]);
            let order: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
            let places = [order, segments, entries].map(|part| {
                words.resize(words.len().next_multiple_of(4), 0);
                let start = words.len() as u64;
                words.extend(part);
                start
            });
            starts.push((places, segment_count, entry_count));
        }
        let address = self.tables.reserve(4 * words.len().max(1))?;
        // Safety: just reserved.
        unsafe { driver.upload(address, bytes_of(&words))? };
        Ok(starts
            .into_iter()
            .map(|(places, segment_count, entry_count)| {
                let [order, segments, entries] = places.map(|start| address + 4 * start);
                Lookups {
                    order,
                    segments,
                    segment_count,
                    entries,
                    entry_count,
                }
            })
            .collect())
    }
}
