//! Gradients that shards add to in their order, whichever thread runs them.
//!
//! The parameters are cut into blocks. A shard may write to a block when the shard before it has finished with it;
//! it then adds its part in place. One gradient buffer serves any number of threads, with the same bits for each.

use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::kernels::buffer::Parts;

/// Looks at a block this often before sleeping; about two microseconds, chosen by us.
const LOOKS: usize = 200;

pub struct Tickets<'a> {
    gradient: Parts<'a, f32>,
    blocks: Vec<Range<usize>>,
    turns: Vec<AtomicUsize>,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
    abandoned: AtomicBool,
}

impl<'a> Tickets<'a> {
    /// `blocks` must not overlap.
    pub fn new(gradient: &'a mut [f32], blocks: Vec<Range<usize>>) -> Self {
        debug_assert!(blocks.windows(2).all(|pair| pair[0].end <= pair[1].start));
        Tickets {
            gradient: Parts::new(gradient),
            turns: blocks.iter().map(|_| AtomicUsize::new(0)).collect(),
            blocks,
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Waits until shards 0 .. `shard` have finished with `block`, and lends it until the result is dropped.
    /// Each shard must take each block once.
    pub fn wait(&self, block: usize, shard: usize) -> Lent<'_> {
        let turn = &self.turns[block];
        let ready = || {
            assert!(
                !self.abandoned.load(Ordering::Relaxed),
                "another shard of the step panicked"
            );
            turn.load(Ordering::SeqCst) == shard
        };
        let mut looks = 0;
        while !ready() {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
                continue;
            }
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while turn.load(Ordering::SeqCst) != shard && !self.abandoned.load(Ordering::SeqCst) {
                guard = self
                    .changed
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        Lent {
            // Safety: blocks do not overlap, and turns let one shard at a time into a block.
            values: unsafe { self.gradient.range(self.blocks[block].clone()) },
            start: self.blocks[block].start,
            tickets: self,
            block,
            shard,
        }
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// To be held while a shard runs: when the shard panics, those that wait for it do too instead of for ever.
    pub fn watch(&self) -> Watch<'_, 'a> {
        Watch(self)
    }
}

pub struct Watch<'t, 'a>(&'t Tickets<'a>);

impl Drop for Watch<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandoned.store(true, Ordering::SeqCst);
            self.0.wake();
        }
    }
}

/// A block of the gradient, lent to one shard.
pub struct Lent<'t> {
    values: &'t mut [f32],
    start: usize,
    tickets: &'t Tickets<'t>,
    block: usize,
    shard: usize,
}

impl Lent<'_> {
    /// The part of the block that lies at `range` of the whole buffer.
    pub fn at(&mut self, range: &Range<usize>) -> &mut [f32] {
        &mut self.values[range.start - self.start..range.end - self.start]
    }
}

impl Deref for Lent<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.values
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.values
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.tickets.turns[self.block].store(self.shard + 1, Ordering::SeqCst);
        self.tickets.wake();
    }
}
