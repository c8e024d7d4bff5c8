//! How fast a device trains: measured once in about a second, then remembered.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::kernels::{Device, Precision};
use crate::model::{Direction, ModelSettings, Shape};
use crate::training::{Workload, computed_share, measure};

/// Small models do less per second than large ones: a rate is measured at the hidden size that is nearest in ratio.
const HIDDEN_SIZES: [usize; 2] = [64, 256];
const CARD_HIDDEN_SIZES: [usize; 2] = [256, 1024];
/// Tokens of each of the sequences measured, and the share of them that is predicted.
const LENGTH: usize = 64;
const PREDICTED: f64 = 0.15;

/// Floating-point operations of training per second at a hidden size, as [`Shape::training_flops_per_token`] counts them.
/// `file` remembers the rates of devices; losing it costs a second.
pub fn operations_per_second(
    device: &Device,
    hidden: usize,
    precision: Precision,
    file: &Path,
) -> Result<f64> {
    let (sizes, sequences) = match device.card() {
        Some(_) => (CARD_HIDDEN_SIZES, 256),
        None => (HIDDEN_SIZES, 32),
    };
    let size = if hidden * hidden <= sizes[0] * sizes[1] {
        sizes[0]
    } else {
        sizes[1]
    };
    // Whoever changes what is measured changes the name, so that older rates are not taken for it.
    let rounded = match precision {
        Precision::F32 => "",
        Precision::Bf16 => ", bf16",
    };
    let name = format!(
        "{}, {} threads, hidden {size}, {:.0} % predicted, what is read computed{rounded}",
        device.description(),
        device.threads(),
        100.0 * PREDICTED
    );
    let mut rates: BTreeMap<String, f64> = fs::read(file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    if let Some(rate) = rates
        .get(&name)
        .filter(|rate| rate.is_finite() && **rate > 0.0)
    {
        return Ok(*rate);
    }
    let settings = ModelSettings {
        layers: 2,
        hidden: size,
        heads: 4,
        feed_forward: 4 * size,
        positions: LENGTH,
        dropout: 0.1,
        attention_dropout: 0.1,
        language_embeddings: true,
    };
    let shape = Shape {
        settings,
        vocabulary: 8 * size,
        languages: 2,
        decoder: false,
    };
    let computed = computed_share(device, PREDICTED);
    let per_token = shape.training_flops_per_token(LENGTH, computed, PREDICTED);
    let workload = Workload {
        shape,
        sequences,
        lengths: vec![LENGTH],
        precision,
        predicted: PREDICTED,
        direction: Direction::Bidirectional,
        steps: 7,
    };
    let rate = measure(&workload, device)?.tokens_per_second * per_token;
    rates.insert(name, rate);
    if let Some(folder) = file.parent().filter(|folder| folder.is_dir()) {
        let beside = folder.join("layout.calibration.new");
        if fs::write(&beside, serde_json::to_vec(&rates)?).is_ok() {
            let _ = fs::rename(&beside, file);
        }
    }
    Ok(rate)
}
