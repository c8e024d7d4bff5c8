//! N-grams that a hypothesis shares with its reference, for the metrics of translation.
//!
//! All n-grams up to the highest order come from one sorted list, of the windows of the highest order. Their prefixes are
//! the n-grams of the lower orders, sorted too, and two sorted lists are intersected in one walk. N-grams are compared
//! whole, not by a hash, and a line of n symbols costs n log n.

use std::array;
use std::collections::HashMap;

/// Enough for the number of a word: a line has fewer than 2^32 of them.
const WORD_BITS: usize = 32;
/// Enough for a code point plus one: the last is 0x10ffff.
const CHARACTER_BITS: usize = 21;

/// How many n-grams of words both have, by order from one on: one counts as often as where it is rarer.
pub(super) fn shared_words<const ORDER: usize>(left: &[&str], right: &[&str]) -> [u64; ORDER] {
    let mut numbers = HashMap::with_capacity(left.len() + right.len());
    let left = sorted_windows::<ORDER, WORD_BITS>(numbered(left, &mut numbers));
    let right = sorted_windows::<ORDER, WORD_BITS>(numbered(right, &mut numbers));
    shared::<ORDER, WORD_BITS>(&left, &right)
}

/// The same of characters.
pub(super) fn shared_characters<const ORDER: usize>(left: &[char], right: &[char]) -> [u64; ORDER] {
    let windows = |characters: &[char]| {
        let numbered = characters.iter().map(|&character| u32::from(character) + 1);
        sorted_windows::<ORDER, CHARACTER_BITS>(numbered.collect())
    };
    shared::<ORDER, CHARACTER_BITS>(&windows(left), &windows(right))
}

/// How many n-grams of each order, from one on, a sequence of `length` symbols has.
pub(super) fn totals<const ORDER: usize>(length: usize) -> [u64; ORDER] {
    array::from_fn(|index| length.saturating_sub(index) as u64)
}

/// The number of each word, from one on: equal words have equal numbers, in all sequences that share the map.
fn numbered<'a>(words: &[&'a str], numbers: &mut HashMap<&'a str, u32>) -> Vec<u32> {
    let mut number = |word| {
        let next = numbers.len() as u32 + 1;
        *numbers.entry(word).or_insert(next)
    };
    words.iter().map(|word| number(*word)).collect()
}

/// The window of `ORDER` symbols that begins at each symbol, sorted. The first symbol stands in the highest bits; behind
/// the end of the sequence stand zeros, which no symbol is.
fn sorted_windows<const ORDER: usize, const BITS: usize>(symbols: Vec<u32>) -> Vec<u128> {
    const { assert!(ORDER >= 1 && ORDER * BITS <= u128::BITS as usize) };
    let mut window = 0;
    let mut windows: Vec<u128> = symbols
        .into_iter()
        .rev()
        .map(|symbol| {
            window = (u128::from(symbol) << ((ORDER - 1) * BITS)) | (window >> BITS);
            window
        })
        .collect();
    windows.sort_unstable();
    windows
}

/// How many n-grams of each order, from one on, both lists of windows have.
fn shared<const ORDER: usize, const BITS: usize>(left: &[u128], right: &[u128]) -> [u64; ORDER] {
    array::from_fn(|index| {
        let shift = (ORDER - 1 - index) * BITS;
        intersection(ngrams::<BITS>(left, shift), ngrams::<BITS>(right, shift))
    })
}

/// The windows without their last `shift` bits, but for those that reach behind the end of the sequence.
fn ngrams<const BITS: usize>(windows: &[u128], shift: usize) -> impl Iterator<Item = u128> {
    let last_symbol = (1 << BITS) - 1;
    windows
        .iter()
        .map(move |window| window >> shift)
        .filter(move |ngram| ngram & last_symbol != 0)
}

/// How many elements two sorted sequences share; equal ones are paired off.
fn intersection(
    mut left: impl Iterator<Item = u128>,
    mut right: impl Iterator<Item = u128>,
) -> u64 {
    let mut shared = 0;
    let (mut here, mut there) = (left.next(), right.next());
    while let (Some(one), Some(other)) = (here, there) {
        shared += u64::from(one == other);
        if one <= other {
            here = left.next();
        }
        if other <= one {
            there = right.next();
        }
    }
    shared
}
