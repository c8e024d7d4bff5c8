//! Which lines of a corpus validate and which train.

use anyhow::{Result, bail};

use crate::random::Random;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Train,
    Validation,
    /// Beyond the limit.
    Unused,
}

/// Sends every line of a corpus to a part. `blocks` are the lengths of runs of lines that belong together; blocks come
/// in seeded order, lines fill validation first, then training up to `limit`. Only the last block of a part is cut.
///
/// # Errors
/// Fewer than as many lines for training as for validation, of which `setting` sets the number.
pub fn assign(
    blocks: &[u32],
    (setting, validation): (&str, u64),
    limit: Option<u64>,
    seed: u64,
    purpose: &str,
) -> Result<Vec<Part>> {
    let total: u64 = blocks.iter().map(|&lines| u64::from(lines)).sum();
    if total < validation.saturating_mul(2) || total == 0 {
        bail!(
            "{total} lines are too few to keep {validation} apart: at least {} are needed, as many to train on; lower `{setting}` or supply more text",
            validation.saturating_mul(2).max(1)
        );
    }
    let mut starts = Vec::with_capacity(blocks.len());
    let mut start = 0usize;
    for &lines in blocks {
        starts.push(start);
        start += lines as usize;
    }
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    Random::new(seed, purpose, 0).shuffle(&mut order);
    let mut parts = vec![Part::Unused; start];
    let (mut to_validate, mut to_train) = (validation, limit.unwrap_or(u64::MAX));
    for block in order {
        for part in &mut parts[starts[block]..][..blocks[block] as usize] {
            if to_validate > 0 {
                to_validate -= 1;
                *part = Part::Validation;
            } else if to_train > 0 {
                to_train -= 1;
                *part = Part::Train;
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_sizes_asked_for_and_follow_the_seed() {
        let blocks = [5, 64, 64, 7, 1, 30];
        let parts = assign(&blocks, ("text", 20), Some(90), 3, "test").unwrap();
        let count = |wanted| parts.iter().filter(|&&part| part == wanted).count();
        assert_eq!((count(Part::Validation), count(Part::Train)), (20, 90));
        assert_eq!(parts.len(), 171);
        assert_eq!(
            parts,
            assign(&blocks, ("text", 20), Some(90), 3, "test").unwrap()
        );
        assert_ne!(
            parts,
            assign(&blocks, ("text", 20), Some(90), 4, "test").unwrap()
        );
        assert!(assign(&blocks, ("text", 86), None, 3, "test").is_err());
    }

    #[test]
    fn validation_does_not_depend_on_the_limit() {
        let blocks = [10; 30];
        let all = assign(&blocks, ("text", 40), None, 0, "test").unwrap();
        let few = assign(&blocks, ("text", 40), Some(50), 0, "test").unwrap();
        for (all, few) in all.iter().zip(few) {
            assert_eq!(*all == Part::Validation, few == Part::Validation);
            assert!(few != Part::Train || *all == Part::Train);
        }
    }
}
