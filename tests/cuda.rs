//! Training and evaluation on a card, with kernels run by an emulator on the CPU: wherever there is a C++ compiler.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use xlt::kernels::cuda::operations::OutOfMemory;
use xlt::kernels::cuda::{Argument, Card, Driver, Element, Launch, Product, SOURCE, Side};
use xlt::kernels::{Device, DeviceChoice, Precision};
use xlt::model::settings::CARD_BASE;
use xlt::model::{Direction, Encoder, Hypothesis, LanguageModelBatch, Model, Search, Shape};
use xlt::training::{Trainer, selftest};

use crate::engine::{adam, all_values, random_batch, tiny};

/// Bytes behind each allocation that nothing may write.
const GUARD: usize = 1 << 16;

type LaunchFunction = unsafe extern "C" fn(
    *const c_char,
    *const c_uint,
    *const c_uint,
    c_uint,
    *mut *mut c_void,
) -> c_int;

/// A card whose memory is the host's and whose kernels run thread by thread.
struct Emulated {
    launch: LaunchFunction,
    allocations: Mutex<HashMap<u64, Layout>>,
    /// Bytes of memory that it has.
    size: u64,
}

/// The compiled kernels; `None` without a C++ compiler.
fn kernels() -> Option<LaunchFunction> {
    static LIBRARY: OnceLock<Option<libloading::Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("kernels.cu");
        let library = folder.path().join("kernels.so");
        std::fs::write(&source, SOURCE).unwrap();
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda/emulator.hpp");
        let options = "-std=c++17 -O1 -w -fPIC -shared -DXLT_EMULATED -x c++";
        let compiled = Command::new(&compiler)
            .args(options.split(' '))
            .args(["-include", header])
            .arg(&source)
            .arg("-o")
            .arg(&library)
            .output();
        match compiled {
            Err(error) => {
                eprintln!("kernels are not tested: {compiler}: {error}");
                None
            }
            Ok(output) => {
                let log = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{log}");
                // Safety: a library without initialisers of consequence.
                Some(unsafe { libloading::Library::new(&library) }.unwrap())
            }
        }
    });
    let library = library.as_ref()?;
    // Safety: the function has this type, and the library is never closed.
    Some(unsafe { *library.get::<LaunchFunction>(b"xlt_launch\0").unwrap() })
}

fn card() -> Option<Arc<dyn Driver>> {
    Some(card_of(1 << 34)?)
}

fn card_of(size: u64) -> Option<Arc<Emulated>> {
    Some(Arc::new(Emulated {
        launch: kernels()?,
        allocations: Mutex::default(),
        size,
    }))
}

impl Emulated {
    fn allocated(&self) -> u64 {
        let allocations = self.allocations.lock().unwrap();
        allocations
            .values()
            .map(|layout| (layout.size() - GUARD) as u64)
            .sum()
    }
}

fn element(address: u64, index: usize, element: Element) -> f32 {
    // Safety: within the operands, by the caller's promise.
    unsafe {
        match element {
            Element::F32 => *(address as *const f32).add(index),
            Element::Bf16 => f32::from_bits(u32::from(*(address as *const u16).add(index)) << 16),
        }
    }
}

fn matrix(side: Side, kind: Element, rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|place| {
            let (row, column) = (place / columns, place % columns);
            let at = match side.transposed {
                false => row * side.stride + column,
                true => column * side.stride + row,
            };
            element(side.address, at, kind)
        })
        .collect()
}

fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

impl Driver for Emulated {
    fn name(&self) -> String {
        "emulated".to_owned()
    }

    fn versions(&self) -> String {
        "emulated".to_owned()
    }

    fn processors(&self) -> usize {
        2
    }

    fn shared_memory(&self) -> usize {
        232_448
    }

    fn memory(&self) -> anyhow::Result<(u64, u64)> {
        Ok((self.size - self.allocated(), self.size))
    }

    fn allocate(&self, bytes: usize) -> anyhow::Result<u64> {
        let (free, all) = self.memory()?;
        if bytes as u64 > free {
            let wanted = bytes as u64;
            return Err(OutOfMemory { wanted, free, all }.into());
        }
        let layout = Layout::from_size_align(bytes + GUARD, 1024)?;
        // Safety: not empty. Filled with what is no number, as a card's memory may be.
        let address = unsafe {
            let memory = std::alloc::alloc(layout);
            memory.write_bytes(0xff, bytes + GUARD);
            memory as u64
        };
        self.allocations.lock().unwrap().insert(address, layout);
        Ok(address)
    }

    unsafe fn release(&self, address: u64) {
        let layout = self.allocations.lock().unwrap().remove(&address).unwrap();
        let size = layout.size();
        // Safety: allocated with this size.
        let guard = unsafe { std::slice::from_raw_parts(address as *const u8, size) };
        let untouched = guard[size - GUARD..].iter().all(|byte| *byte == 0xff);
        assert!(untouched, "written behind {} bytes", size - GUARD);
        // Safety: allocated with this layout.
        unsafe { std::alloc::dealloc(address as *mut u8, layout) };
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> anyhow::Result<()> {
        // Safety: by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> anyhow::Result<()> {
        // Safety: by the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    unsafe fn clear(&self, at: u64, bytes: usize) -> anyhow::Result<()> {
        // Safety: by the caller's promise.
        unsafe { (at as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> anyhow::Result<()> {
        let name = CString::new(launch.kernel)?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        // Safety: by the caller's promise.
        let code = unsafe {
            (self.launch)(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared as c_uint,
                pointers.as_mut_ptr(),
            )
        };
        anyhow::ensure!(code == 0, "{launch:?}: {code}");
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product) -> anyhow::Result<()> {
        let Product {
            rows,
            depth,
            columns,
            ..
        } = *product;
        let left = matrix(product.left, product.element, rows, depth);
        let right = matrix(product.right, product.element, depth, columns);
        for row in 0..rows {
            let mut sums = vec![0f32; columns];
            for (inner, value) in left[row * depth..(row + 1) * depth].iter().enumerate() {
                let right = &right[inner * columns..(inner + 1) * columns];
                for (sum, other) in sums.iter_mut().zip(right) {
                    *sum = value.mul_add(*other, *sum);
                }
            }
            for (column, sum) in sums.into_iter().enumerate() {
                let at = row * product.out_stride + column;
                let kind = product.out_element;
                let mut value = sum;
                if let Some(bias) = product.bias {
                    value += element(bias, column, kind);
                }
                if product.beta != 0.0 {
                    value += product.beta * element(product.out, at, kind);
                }
                // Safety: by the caller's promise.
                unsafe {
                    match kind {
                        Element::F32 => *(product.out as *mut f32).add(at) = value,
                        Element::Bf16 => *(product.out as *mut u16).add(at) = round(value),
                    }
                }
            }
        }
        Ok(())
    }

    fn synchronise(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Shapes, precisions, starts and limits are those of `xlt selftest`.
#[test]
fn a_card_computes_what_the_cpu_does_and_repeats_itself() {
    let Some(card) = card() else { return };
    let mut failed = Vec::new();
    selftest::run(&Device::with_card(1, card), false, &mut |check| {
        if !check.passes() {
            failed.push(check.clone());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_model_that_no_kernel_fits_is_refused_with_what_to_do() {
    let Some(card) = card() else { return };
    let mut shape = tiny(0.0);
    shape.settings.hidden = 12;
    let input = random_batch(&shape, &[3], 1);
    let error = Encoder::new(Model::initialise(&shape, 5), &Device::with_card(1, card))
        .language_model_loss(&input)
        .unwrap_err();
    assert!(format!("{error:#}").contains("--device cpu"), "{error:#}");
}

#[test]
fn a_card_that_is_not_there_is_told_with_what_to_do() {
    if Card::count() > 0 {
        return;
    }
    let error = DeviceChoice::Cuda(vec![0]).open(1).unwrap_err();
    assert!(format!("{error:#}").contains("--device cpu"), "{error:#}");
    assert!(DeviceChoice::Auto.open(1).unwrap().card().is_none());
}

#[test]
fn a_selftest_without_a_card_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_xlt"))
        .args(["selftest", "--device", "cpu"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--device cuda"), "{told}");
}

/// What a search on the CPU finds follows the card's updates.
#[test]
fn translations_follow_the_updates_of_a_card() {
    let Some(card) = card() else { return };
    let shape = Shape {
        decoder: true,
        ..tiny(0.0)
    };
    let search = Search {
        beam: 2,
        length_penalty: 1.0,
        longest: (1.0, 3),
        end: 1,
    };
    let source = random_batch(&shape, &[4, 6], 2).batch;
    let input = LanguageModelBatch {
        direction: Direction::Causal,
        source: Some(source.clone()),
        ..random_batch(&shape, &[5, 3], 3)
    };
    let [ours, cpu] = [Device::with_card(1, card), Device::cpu(1)].map(|device| {
        let model = Model::initialise(&shape, 5);
        let mut trainer = Trainer::new(model, &adam(1e-2), 100, &device, 9).unwrap();
        let mut found = Vec::new();
        for _ in 0..3 {
            trainer
                .language_model_step(std::slice::from_ref(&input))
                .unwrap();
            let translations = trainer
                .encoder()
                .translate(&source, &[0, 1], &search)
                .unwrap();
            let tokens = |hypotheses: Vec<Hypothesis>| hypotheses[0].tokens.clone();
            found.push(translations.into_iter().map(tokens).collect::<Vec<_>>());
        }
        found
    });
    assert_eq!(ours, cpu);
}

fn medium() -> Shape {
    let mut shape = tiny(0.1);
    shape.settings.layers = 3;
    (shape.settings.hidden, shape.settings.feed_forward) = (64, 256);
    (shape.settings.positions, shape.vocabulary) = (128, 1000);
    shape
}

#[test]
fn the_estimate_of_a_cards_memory_is_near_what_is_allocated() {
    for (precision, tokens) in [(Precision::F32, 512), (Precision::Bf16, 1024)] {
        let Some(card) = card_of(1 << 34) else { return };
        let shape = medium();
        let input = random_batch(&shape, &vec![64; tokens / 64], 1);
        let device = Device::with_card(1, card.clone());
        let model = Model::initialise(&shape, 5);
        let mut trainer = Trainer::new(model, &adam(1e-3), 100, &device, 9)
            .unwrap()
            .in_precision(precision);
        trainer
            .language_model_step(std::slice::from_ref(&input))
            .unwrap();
        let predicted = input.targets.labels.len() as f64 / tokens as f64;
        let estimate = shape.card_bytes(tokens, predicted, precision) - CARD_BASE;
        let allocated = card.allocated();
        assert!(
            allocated <= estimate && estimate < 2 * allocated,
            "{precision:?}: {allocated} of {estimate} bytes"
        );
    }
}

#[test]
fn a_full_card_is_told_with_how_many_tokens_fit_and_loses_nothing() {
    let Some(card) = card_of(CARD_BASE / 50) else {
        return;
    };
    let shape = medium();
    let device = Device::with_card(1, card);
    let small = random_batch(&shape, &[10, 20], 1);
    let large = random_batch(&shape, &[128; 40], 1);
    let [whole, refused] = [false, true].map(|refused| {
        let model = Model::initialise(&shape, 5);
        let mut trainer = Trainer::new(model, &adam(1e-3), 100, &device, 9).unwrap();
        trainer
            .language_model_step(std::slice::from_ref(&small))
            .unwrap();
        if refused {
            // The second micro-batch is too much: the first has added its gradient.
            let error = trainer
                .language_model_step(&[small.clone(), large.clone()])
                .unwrap_err();
            let told = format!("{error:#}");
            assert!(told.contains("tokens of such sequences fit"), "{told}");
            assert!(told.contains("memory is full"), "{told}");
        }
        trainer
            .language_model_step(std::slice::from_ref(&small))
            .unwrap();
        all_values(trainer.model().unwrap())
    });
    assert_eq!(whole, refused);
}
