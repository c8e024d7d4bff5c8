//! Buffers of f32 that start on a cache line, and disjoint writing to one of them from several threads.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use memmap2::MmapMut;

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// From so many bytes on a buffer has pages of its own, huge ones where the system has them: below, a huge page is mostly
/// unused. Ours.
const OWN_PAGES: usize = 4 << 20;

/// A growable, zero-initialised f32 buffer aligned to 64 bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Memory,
    length: usize,
}

/// Sixteen values in each line; pages begin with a line.
#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Lines(Vec::new())
    }
}

impl Memory {
    /// Zeros. Matrix products walk through megabytes in strides: with pages of 4 KiB they wait for translations of addresses.
    fn zeros(lines: usize) -> Memory {
        let bytes = lines * size_of::<Line>();
        if bytes >= OWN_PAGES
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            // Advice: what the system makes of it changes no result.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Memory::Pages(pages);
        }
        Memory::Lines(vec![Line([0.0; 16]); lines])
    }

    /// Values that there is room for.
    fn capacity(&self) -> usize {
        match self {
            Memory::Lines(lines) => 16 * lines.len(),
            Memory::Pages(pages) => pages.len() / size_of::<f32>(),
        }
    }

    fn pointer(&self) -> *const f32 {
        match self {
            Memory::Lines(lines) => lines.as_ptr().cast(),
            Memory::Pages(pages) => pages.as_ptr().cast(),
        }
    }

    fn pointer_mut(&mut self) -> *mut f32 {
        match self {
            Memory::Lines(lines) => lines.as_mut_ptr().cast(),
            Memory::Pages(pages) => pages.as_mut_ptr().cast(),
        }
    }
}

impl Buffer {
    pub fn zeros(length: usize) -> Buffer {
        Buffer {
            memory: Memory::zeros(length.div_ceil(16)),
            length,
        }
    }

    /// Sets the length and keeps the values there are; those behind them are unspecified, and the caller writes them.
    pub fn resize(&mut self, length: usize) {
        if length > self.memory.capacity() {
            let mut longer = Buffer {
                memory: Memory::zeros(length.div_ceil(16)),
                length,
            };
            longer[..self.length].copy_from_slice(self);
            self.memory = longer.memory;
        }
        self.length = length;
    }

    /// Sets the length and clears it.
    pub fn clear_to(&mut self, length: usize) {
        self.resize(length);
        self.fill(0.0);
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Buffer::zeros(self.length);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // Safety: the memory holds `capacity` values, plain data that was zero at first, and `length` never exceeds it.
        unsafe { std::slice::from_raw_parts(self.memory.pointer(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // Safety: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.pointer_mut(), self.length) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_grows_keeps_its_values_and_its_alignment() {
        let mut buffer = Buffer::zeros(100);
        for length in [1_000, OWN_PAGES / 4, 3 * OWN_PAGES / 4, 50] {
            let before = buffer.to_vec();
            buffer.resize(length);
            let kept = before.len().min(length);
            assert_eq!(buffer[..kept], before[..kept]);
            assert_eq!(buffer.as_ptr().align_offset(64), 0);
            buffer
                .iter_mut()
                .enumerate()
                .for_each(|(index, value)| *value = index as f32);
        }
        let copy = buffer.clone();
        assert_eq!(*copy, *buffer);
        assert!(Buffer::zeros(OWN_PAGES).iter().all(|value| *value == 0.0));
    }
}
