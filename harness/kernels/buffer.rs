//! Buffers of f32 that start on a cache line, and disjoint writing to one of them from several threads.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growable, zero-initialised f32 buffer aligned to 64 bytes.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    length: usize,
}

impl Buffer {
    pub fn zeros(length: usize) -> Buffer {
        Buffer {
            lines: vec![Line([0.0; 16]); length.div_ceil(16)],
            length,
        }
    }

    /// Sets the length and keeps the memory. What lies in the buffer afterwards is unspecified; the caller writes it.
    pub fn resize(&mut self, length: usize) {
        let lines = length.div_ceil(16);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        self.length = length;
    }

    /// Sets the length and clears it.
    pub fn clear_to(&mut self, length: usize) {
        self.resize(length);
        self.fill(0.0);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // Safety: a line is sixteen f32 without padding, and `length` never exceeds the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // Safety: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// A mutable slice of which several threads write disjoint ranges.
pub struct Parts<'a, T> {
    pointer: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// Safety: access goes through `range`, whose caller promises disjointness.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Parts {
            pointer: slice.as_mut_ptr(),
            length: slice.len(),
            borrow: PhantomData,
        }
    }

    /// # Safety
    /// Ranges that are alive at the same time must not overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // Safety: in bounds as just checked; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}
