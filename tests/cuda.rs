//! Training and evaluation on a card, with kernels run by an emulator on the CPU: wherever there is a C++ compiler.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use xlt::kernels::cuda::{Argument, Driver, Element, Launch, Product, SOURCE, Side};
use xlt::kernels::{Device, Precision};
use xlt::model::{
    Batch, Direction, Encoder, LanguageModelBatch, Model, ModelSettings, Shape, Tap,
};
use xlt::training::Trainer;

use crate::engine::{adam, all_values, gradients, random_batch, values};

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
    Some(Arc::new(Emulated {
        launch: kernels()?,
        allocations: Mutex::default(),
    }))
}

fn element(address: u64, index: usize, element: Element) -> f32 {
    // Safety: within the operands, by the caller's promise.
    unsafe {
        match element {
            Element::F32 => *(address as *const f32).add(index),
            Element::Bf16 => {
                f32::from_bits(u32::from(*(address as *const u16).add(index)) << 16)
            }
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

    fn memory(&self) -> anyhow::Result<(u64, u64)> {
        Ok((1 << 30, 1 << 30))
    }

    fn allocate(&self, bytes: usize) -> anyhow::Result<u64> {
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

fn shape(hidden: usize, heads: usize, layers: usize, dropout: f32, decoder: bool) -> Shape {
    Shape {
        settings: ModelSettings {
            layers,
            hidden,
            heads,
            feed_forward: 2 * hidden,
            positions: 160,
            dropout,
            attention_dropout: dropout,
            language_embeddings: true,
        },
        vocabulary: 45,
        languages: 3,
        decoder,
    }
}

fn trainer_on(shape: &Shape, device: &Device, precision: Precision) -> Trainer {
    Trainer::new(Model::initialise(shape, 5), &adam(1e-3), 100, device, 9)
        .unwrap()
        .in_precision(precision)
}

fn input(shape: &Shape, lengths: &[usize], seed: u64, direction: Direction) -> LanguageModelBatch {
    LanguageModelBatch {
        direction,
        ..random_batch(shape, lengths, seed)
    }
}

/// Lengths around the tiles of attention, a sequence of one token, and one alone.
const LENGTHS: [&[usize]; 4] = [&[1, 64, 7, 130], &[65], &[1], &[33, 2, 2, 90, 16]];

/// Largest error of any gradient, as a share of its tensor's largest entry; and that of the key biases, which are zero in exact
/// arithmetic, as a share of the norm.
fn gradient_error(card: &Trainer, cpu: &Trainer) -> f32 {
    let expected = gradients(cpu);
    let norm = expected
        .iter()
        .flat_map(|(_, values)| values)
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt();
    let mut worst = 0f32;
    for ((name, ours), (_, theirs)) in gradients(card).iter().zip(&expected) {
        let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
        let largest = largest.max(1e-3 * norm).max(f32::MIN_POSITIVE);
        for (place, (a, b)) in ours.iter().zip(theirs).enumerate() {
            let error = (a - b).abs() / largest;
            assert!(error.is_finite(), "{name}[{place}]: {a} {b}");
            if std::env::var("XLT_SHOW").is_ok() && error > 0.05 {
                eprintln!("{name}[{place}]: {a} {b}");
            }
            worst = worst.max(error);
        }
    }
    worst
}

fn assert_agree(shape: &Shape, inputs: &[LanguageModelBatch], precision: Precision, limit: f32) {
    let Some(card) = card() else { return };
    let mut ours = trainer_on(shape, &Device::with_card(1, card), precision);
    let mut cpu = trainer_on(shape, &Device::cpu(1), Precision::F32);
    let [got, expected] =
        [&mut ours, &mut cpu].map(|trainer| trainer.accumulate_language_model(inputs, 0.5).unwrap());
    let what = format!("{:?}, {inputs:?}", shape.settings);
    assert!(
        (got.nats - expected.nats).abs() <= f64::from(limit) * expected.nats,
        "{got:?} {expected:?} {what}"
    );
    assert_eq!(got.targets, expected.targets);
    let error = gradient_error(&ours, &cpu);
    assert!(error <= limit, "{error} {what}");
}

#[test]
fn losses_and_gradients_on_a_card_are_those_of_the_cpu() {
    for (hidden, heads) in [(48, 4), (64, 2), (16, 1)] {
        for direction in [Direction::Bidirectional, Direction::Causal] {
            let shape = shape(hidden, heads, 2, 0.1, false);
            for (seed, lengths) in LENGTHS.iter().enumerate() {
                let batch = input(&shape, lengths, seed as u64, direction);
                assert_agree(&shape, &[batch], Precision::F32, 1e-4);
            }
        }
    }
}

#[test]
fn rounded_losses_and_gradients_on_a_card_are_near_those_of_the_cpu() {
    for (hidden, heads) in [(64, 2), (64, 1), (128, 1), (48, 4)] {
        for direction in [Direction::Bidirectional, Direction::Causal] {
            let shape = shape(hidden, heads, 1, 0.1, false);
            for (seed, lengths) in LENGTHS.iter().enumerate() {
                let batch = input(&shape, lengths, seed as u64, direction);
                assert_agree(&shape, &[batch], Precision::Bf16, 0.03);
            }
        }
    }
}

fn translation(shape: &Shape, lengths: &[usize], sources: &[usize]) -> LanguageModelBatch {
    LanguageModelBatch {
        source: Some(random_batch(shape, sources, 7).batch),
        ..input(shape, lengths, 3, Direction::Causal)
    }
}

#[test]
fn a_decoder_and_its_encoder_on_a_card_have_the_gradients_of_the_cpu() {
    let shape = shape(32, 1, 2, 0.1, true);
    let inputs = [
        translation(&shape, &[3, 70, 1], &[66, 2, 5]),
        translation(&shape, &[9, 4], &[1, 80]),
    ];
    assert_agree(&shape, &inputs, Precision::F32, 1e-4);
    assert_agree(&shape, &inputs, Precision::Bf16, 0.04);
}

#[test]
fn twenty_steps_on_a_card_have_the_losses_of_the_cpu() {
    let Some(card) = card() else { return };
    let shape = shape(32, 2, 2, 0.0, false);
    let mut ours = trainer_on(&shape, &Device::with_card(1, card), Precision::F32);
    let mut cpu = trainer_on(&shape, &Device::cpu(1), Precision::F32);
    for step in 0..20 {
        let batch = input(&shape, &[12, 20, 5], step, Direction::Bidirectional);
        let [got, expected] = [&mut ours, &mut cpu]
            .map(|trainer| trainer.language_model_step(std::slice::from_ref(&batch)).unwrap());
        assert!((got.loss - expected.loss).abs() <= 1e-4, "{step}");
        assert!((got.gradient_norm / expected.gradient_norm - 1.0).abs() <= 1e-3);
    }
}

#[test]
fn training_on_a_card_repeats_and_resumes_bit_for_bit() {
    let Some(card) = card() else { return };
    let device = Device::with_card(1, card);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors");
    let shape = shape(64, 2, 1, 0.1, false);
    let batch = |step| [input(&shape, &[12, 20, 5], step, Direction::Bidirectional)];
    let mut whole = trainer_on(&shape, &device, Precision::Bf16);
    let mut resumed = trainer_on(&shape, &device, Precision::Bf16);
    for step in 0..4 {
        whole.language_model_step(&batch(step)).unwrap();
    }
    let mut first = trainer_on(&shape, &device, Precision::Bf16);
    for step in 0..2 {
        first.language_model_step(&batch(step)).unwrap();
    }
    first.save_state(&state).unwrap();
    resumed.load_state(&state).unwrap();
    for step in 2..4 {
        resumed.language_model_step(&batch(step)).unwrap();
    }
    let values = all_values(whole.model().unwrap());
    assert_eq!(values, all_values(resumed.model().unwrap()));
    assert_ne!(values, all_values(first.model().unwrap()));
    assert_eq!(values, all_values(&whole.into_model().unwrap()));
}

#[test]
fn a_head_trains_the_trunk_of_a_card_as_that_of_the_cpu() {
    let Some(card) = card() else { return };
    let shape = shape(32, 2, 3, 0.1, false);
    let batch = random_batch(&shape, &[5, 1, 70, 3], 1).batch;
    let mut trained = [Device::with_card(1, card), Device::cpu(1)].map(|device| {
        let mut trainer = trainer_on(&shape, &device, Precision::F32);
        trainer
            .freeze(|name| name.starts_with("embeddings") || name.starts_with("layers.0"))
            .unwrap();
        let pass = trainer
            .forward(&batch, Direction::Bidirectional, &[Tap::Last, Tap::Layer(2)])
            .unwrap();
        let table = trainer.parameter("output.bias").unwrap();
        let upper = pass.tap(Tap::Last).unwrap().tanh().unwrap().sum_all().unwrap();
        let lower = pass.tap(Tap::Layer(2)).unwrap().sqr().unwrap().sum_all().unwrap();
        let tied = table.sqr().unwrap().sum_all().unwrap();
        let loss = ((upper + lower).unwrap() + tied).unwrap();
        trainer.backward_loss(vec![pass], &loss).unwrap();
        trainer
    });
    let [ours, cpu] = &trained;
    let error = gradient_error(ours, cpu);
    assert!(error <= 1e-4, "{error}");
    let [got, expected] = [0, 1].map(|index| trained[index].apply(10.0).unwrap());
    assert!((got.gradient_norm / expected.gradient_norm - 1.0).abs() < 1e-4);
    let [ours, cpu] = &trained;
    let [ours, cpu] = [ours, cpu].map(|trainer| trainer.model().unwrap());
    for ((name, _, a), (_, _, b)) in ours.parameters().zip(cpu.parameters()) {
        if name.starts_with("layers.0") {
            assert_eq!(a, b, "{name}");
        }
    }
}

#[test]
fn evaluation_on_a_card_gives_the_states_losses_and_translations_of_the_cpu() {
    let Some(card) = card() else { return };
    let shape = shape(48, 4, 2, 0.1, true);
    let card = Device::with_card(1, card);
    let [ours, cpu] = [card.clone(), Device::cpu(1)]
        .map(|device| Encoder::new(Model::initialise(&shape, 5), &device));
    let input = translation(&shape, &[3, 70, 1], &[66, 2, 5]);
    let [got, expected] = [&ours, &cpu].map(|encoder| encoder.language_model_loss(&input).unwrap());
    assert!((got.nats / expected.nats - 1.0).abs() < 1e-5);
    assert_eq!(got.correct, expected.correct);
    let batch: &Batch = &input.batch;
    for tap in [Tap::Embeddings, Tap::Layer(1), Tap::Last] {
        let [got, expected] = [&ours, &cpu]
            .map(|encoder| values(&encoder.predict(batch, Direction::Bidirectional, tap).unwrap()));
        for (a, b) in got.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    let impossible = Shape {
        settings: ModelSettings {
            hidden: 12,
            ..shape.settings.clone()
        },
        ..shape
    };
    let error = Encoder::new(Model::initialise(&impossible, 5), &card)
        .predict(batch, Direction::Bidirectional, Tap::Last)
        .unwrap_err();
    assert!(format!("{error:#}").contains("--device cpu"), "{error:#}");
}
