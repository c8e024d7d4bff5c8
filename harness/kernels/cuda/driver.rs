//! What the trunk asks of a card: memory, copies, launches and matrix products, all done in the order they are asked for.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use anyhow::Result;

use crate::kernels::Precision;
use crate::kernels::adam::Update;

/// A card, or what stands in for one. Addresses are bytes in its memory. Everything but `download` may return before it is done;
/// what is asked for later sees it done.
pub trait Driver: Send + Sync {
    /// The card's name, such as `NVIDIA H100 80GB HBM3`.
    fn name(&self) -> String;

    /// What results may depend on besides the inputs: the architecture and the versions of the libraries.
    fn versions(&self) -> String;

    /// Processors that run blocks side by side.
    fn processors(&self) -> usize;

    /// Bytes of shared memory that a block may have.
    fn shared_memory(&self) -> usize;

    /// Bytes that are free, and all.
    fn memory(&self) -> Result<(u64, u64)>;

    /// Memory that holds anything; errs when the card is full.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// # Safety
    /// `address` comes from [`Driver::allocate`] and is not used again.
    unsafe fn release(&self, address: u64);

    /// # Safety
    /// The card's memory holds so many bytes from `to` on.
    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Waits for everything asked for before.
    ///
    /// # Safety
    /// The card's memory holds so many bytes from `from` on.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Sets bytes to zero.
    ///
    /// # Safety
    /// The card's memory holds so many bytes from `at` on.
    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<()>;

    /// # Safety
    /// The arguments are those of the kernel, and what they point to is large enough.
    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<()>;

    /// # Safety
    /// The operands' memory is large enough, and the result's is not read by the product unless `beta` says so.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;

    /// Waits for everything asked for before.
    fn synchronise(&self) -> Result<()>;

    /// From now on the time of every kernel and product is taken.
    fn record(&self) -> Result<()> {
        Ok(())
    }

    /// Waits, and hands out the milliseconds since [`Driver::record`], by kernel; nothing where they cannot be taken.
    fn recorded(&self) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }
}

/// How many threads run which kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    pub kernel: &'a str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    Address(u64),
    Integer(i32),
    Long(u64),
    Float(f32),
    Dropout(DropoutArgument),
    Attention(AttentionArgument),
    Update(Update),
}

impl Argument {
    /// Where the value lies.
    pub fn pointer(&self) -> *mut c_void {
        let pointer: *const c_void = match self {
            Argument::Address(value) => std::ptr::from_ref(value).cast(),
            Argument::Integer(value) => std::ptr::from_ref(value).cast(),
            Argument::Long(value) => std::ptr::from_ref(value).cast(),
            Argument::Float(value) => std::ptr::from_ref(value).cast(),
            Argument::Dropout(value) => std::ptr::from_ref(value).cast(),
            Argument::Attention(value) => std::ptr::from_ref(value).cast(),
            Argument::Update(value) => std::ptr::from_ref(value).cast(),
        };
        pointer.cast_mut()
    }
}

/// As `Dropout` in source/common.cu; a threshold of zero drops nothing.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct DropoutArgument {
    pub key: [u32; 2],
    pub threshold: u32,
    pub scale: f32,
}

/// As `Attention` in source/attention.cu.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AttentionArgument {
    pub width: i32,
    pub heads: i32,
    pub causal: i32,
    pub tokens: i32,
    pub query_stride: i32,
    pub key_stride: i32,
    pub scale: f32,
    pub dropout: DropoutArgument,
    pub first_row: u64,
    pub query_offsets: u64,
    pub key_offsets: u64,
    pub tiles: u64,
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    Bf16,
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Element {
        match precision {
            Precision::F32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
        }
    }
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }

    /// As in the names of kernels.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "float",
            Element::Bf16 => "bf16",
        }
    }
}

/// A matrix of a product, by rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    pub address: u64,
    /// Elements from one row to the next.
    pub stride: usize,
    /// Whether its transpose enters the product.
    pub transposed: bool,
}

/// out[rows, columns] = left[rows, depth] . right[depth, columns] + bias[columns] + beta * out, with sums in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub left: Side,
    pub right: Side,
    /// Of both operands.
    pub element: Element,
    pub out: u64,
    pub out_stride: usize,
    pub out_element: Element,
    /// 0 or 1.
    pub beta: f32,
    /// In the type of the result.
    pub bias: Option<u64>,
}

/// A part of a card's memory, given back when dropped. Grows when asked to and then holds anything.
pub struct Memory {
    driver: Arc<dyn Driver>,
    address: u64,
    bytes: usize,
}

impl Memory {
    pub fn new(driver: &Arc<dyn Driver>) -> Memory {
        Memory {
            driver: driver.clone(),
            address: 0,
            bytes: 0,
        }
    }

    pub fn zeros(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Memory> {
        let mut memory = Memory::new(driver);
        let address = memory.reserve(bytes)?;
        // Safety: just allocated.
        unsafe { driver.clear(address, bytes)? };
        Ok(memory)
    }

    /// Room for so many bytes; what was there is lost when it grows.
    pub fn reserve(&mut self, bytes: usize) -> Result<u64> {
        if bytes > self.bytes || self.address == 0 {
            self.give_back();
            // A little more than asked for: batches are of slightly different sizes.
            let bytes = (bytes + bytes / 16).next_multiple_of(1024).max(1024);
            self.address = self.driver.allocate(bytes)?;
            self.bytes = bytes;
        }
        Ok(self.address)
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    fn give_back(&mut self) {
        if self.address != 0 {
            // Safety: ours, and not used again.
            unsafe { self.driver.release(self.address) };
            (self.address, self.bytes) = (0, 0);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The bytes of plain numbers.
pub trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}

pub fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // Safety: numbers without padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

pub fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // Safety: numbers without padding, of which any bytes are one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
