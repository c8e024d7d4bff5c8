//! How a batch is cut into shards, the units that threads take: a function of the batch alone.

use std::borrow::Cow;
use std::ops::Range;

use super::batch::Batch;

/// Shards that a step is cut into when it is long enough: work for as many threads, and balance for fewer.
const SHARDS_PER_STEP: usize = 8;

/// Bounds of a shard's size in tokens, chosen by measurement: below, adding weight gradients costs more than it
/// brings; above, activations leave the cache for nothing.
const SMALLEST: usize = 160;
const LARGEST: usize = 512;

/// Tokens per shard to aim at in a step of `tokens` tokens.
pub fn shard_tokens(tokens: usize) -> usize {
    (tokens / SHARDS_PER_STEP).clamp(SMALLEST, LARGEST)
}

/// Offsets that count the tokens of a batch's sequences and of their sources together.
pub fn with_sources<'a>(batch: &'a Batch, source: Option<&Batch>) -> Cow<'a, [u32]> {
    match source {
        None => Cow::Borrowed(&batch.offsets),
        Some(source) => {
            let pairs = batch.offsets.iter().zip(&source.offsets);
            Cow::Owned(pairs.map(|(own, source)| own + source).collect())
        }
    }
}

/// Ranges of whole sequences, of which `offsets` tells the tokens, with about equal numbers of tokens, near `aim` tokens each; an even number of them
/// where there is more than one, so that two threads finish together.
///
/// Micro-batches give the bits of the whole batch when their shards are its shards. As `aim` comes from the step's
/// tokens, that is so when all sequences have one length and the micro-batches are whole shards.
pub fn partition(offsets: &[u32], aim: usize) -> Vec<Range<usize>> {
    let (sequences, tokens) = match offsets {
        [] => (0, 0),
        [.., last] => (offsets.len() - 1, *last as usize),
    };
    let count = match tokens {
        0 => return Vec::new(),
        // Too little to share.
        tokens if tokens < SMALLEST => 1,
        tokens => 2 * (tokens as f64 / (2 * aim.max(1)) as f64).round().max(1.0) as usize,
    };
    let mut shards = Vec::with_capacity(count);
    let mut start = 0;
    for shard in 1..=count {
        // The sequence whose end is nearest to an equal share.
        let share = tokens * shard / count;
        let after = offsets.partition_point(|&offset| (offset as usize) < share);
        let end = match offsets.get(after) {
            Some(&offset)
                if after > 0 && offset as usize - share > share - offsets[after - 1] as usize =>
            {
                after - 1
            }
            _ => after,
        }
        .min(sequences);
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
            let shards = partition(&batch.offsets, shard_tokens(batch.token_count()));
            assert_eq!(shards[0].start, 0);
            assert!(shards.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(shards[shards.len() - 1].end, lengths.len());
            assert!(shards.iter().all(|shard| !shard.is_empty()));
        }
        assert_eq!(
            partition(&batch(&[43; 8]).offsets, shard_tokens(344)).len(),
            2
        );
        assert_eq!(
            partition(&batch(&[64; 32]).offsets, shard_tokens(2048)).len(),
            8
        );
        assert!(partition(&Batch::new().offsets, 160).is_empty());
    }
}
