//! How a batch is cut into shards, the units that threads take: a function of the batch alone.

use std::ops::Range;

use super::batch::Batch;

/// Shards that a step is cut into when it is long enough: work for as many threads, and balance for fewer.
const SHARDS_PER_STEP: usize = 8;

/// Bounds of a shard's size in tokens: below, products lose speed; above, activations leave the cache for nothing.
const SMALLEST: usize = 96;
const LARGEST: usize = 512;

/// Tokens per shard to aim at in a step of `tokens` tokens.
pub fn shard_tokens(tokens: usize) -> usize {
    (tokens / SHARDS_PER_STEP).clamp(SMALLEST, LARGEST)
}

/// Ranges of whole sequences with about equal numbers of tokens, near `aim` tokens each; an even number of them
/// where there is more than one, so that two threads finish together.
///
/// Micro-batches give the bits of the whole batch when their shards are its shards. As `aim` comes from the step's
/// tokens, that is so when all sequences have one length and the micro-batches are whole shards.
pub fn partition(batch: &Batch, aim: usize) -> Vec<Range<usize>> {
    let tokens = batch.token_count();
    let count = match tokens.div_ceil(aim.max(1)) {
        0 => return Vec::new(),
        1 if tokens <= SMALLEST => 1,
        count => count.next_multiple_of(2),
    };
    let mut shards = Vec::with_capacity(count);
    let mut start = 0;
    for shard in 1..=count {
        // The sequence whose end is nearest to an equal share.
        let share = tokens * shard / count;
        let after = batch
            .offsets
            .partition_point(|&offset| (offset as usize) < share);
        let end = match batch.offsets.get(after) {
            Some(&offset)
                if after > 0
                    && offset as usize - share > share - batch.offsets[after - 1] as usize =>
            {
                after - 1
            }
            _ => after,
        }
        .min(batch.sequences());
        if end > start {
            shards.push(start..end);
            start = end;
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lengths: &[usize]) -> Batch {
        let mut batch = Batch::new();
        for &length in lengths {
            batch.push(&vec![1; length], 0);
        }
        batch
    }

    #[test]
    fn shards_cover_every_sequence_once_and_are_balanced() {
        for lengths in [
            vec![43; 8],
            vec![20; 64],
            vec![64; 32],
            vec![1],
            vec![500, 1, 1, 1],
            vec![1, 1, 500],
            vec![7; 3],
        ] {
            let batch = batch(&lengths);
            let shards = partition(&batch, shard_tokens(batch.token_count()));
            assert_eq!(shards[0].start, 0);
            assert!(shards.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(shards[shards.len() - 1].end, lengths.len());
            assert!(shards.iter().all(|shard| !shard.is_empty()));
        }
        assert_eq!(partition(&batch(&[43; 8]), shard_tokens(344)).len(), 4);
        assert_eq!(partition(&batch(&[64; 32]), shard_tokens(2048)).len(), 8);
        assert!(partition(&Batch::new(), 96).is_empty());
    }
}
