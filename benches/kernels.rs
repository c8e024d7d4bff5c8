//! Each kernel by itself on one thread: `cargo bench`. Medians of nine; the sizes are those of XLM with hidden 256,
//! feed-forward 1024, 4 heads, shards of 256 tokens in sequences of 64, and a vocabulary of 8000.

use std::hint::black_box;
use std::time::Instant;

use xlt::kernels::adam::{Adam, Update};
use xlt::kernels::attention::{
    self, Attention, AttentionScratch, OperandGradients, Operands, probabilities_length,
};
use xlt::kernels::dropout::{Dropout, Rows};
use xlt::kernels::gelu::Gelu;
use xlt::kernels::lanes::vectorised;
use xlt::kernels::matmul::{Matrix, Precision, Write, packed_length};
use xlt::kernels::normalise::{NormaliseResidual, NormaliseResidualBackward};
use xlt::kernels::vocabulary::{
    Output, VocabularyScratch, add_table_gradient, loss, states_gradient,
};

const TOKENS: usize = 256;
const HIDDEN: usize = 256;
const FEED_FORWARD: usize = 1024;
const LENGTH: usize = 64;
const VOCABULARY: usize = 8000;
const TARGETS: usize = 40;

/// Median seconds of a call; calls are repeated so that each measurement lasts some milliseconds.
fn seconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    call();
    let once = start.elapsed().as_secs_f64();
    let repeats = (0.005 / once.max(1e-9)).ceil().max(1.0) as usize;
    let mut measured: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..repeats).for_each(|_| call());
            start.elapsed().as_secs_f64() / repeats as f64
        })
        .collect();
    measured.sort_by(f64::total_cmp);
    measured[4]
}

fn print(name: &str, seconds: f64, operations: f64, bytes: f64) {
    println!(
        "{name:44} {:10.1} us {:8.1} GFLOP/s {:8.1} GB/s",
        1e6 * seconds,
        operations / seconds / 1e9,
        bytes / seconds / 1e9
    );
}

/// Values without pattern, the same in every run.
fn values(length: usize) -> Vec<f32> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn product(name: &str, rows: usize, depth: usize, columns: usize, transposed: bool) {
    let (left, right) = (values(rows * depth), values(depth * columns));
    let mut panels = vec![0.0; packed_length(depth, columns)];
    let mut out = vec![0.0; rows * columns];
    let packing =
        seconds(|| Precision::F32.pack(Matrix::rows(&right, columns), depth, columns, &mut panels));
    let matrix = if transposed {
        Matrix::columns(&left, rows)
    } else {
        Matrix::rows(&left, depth)
    };
    let multiplying = seconds(|| {
        Precision::F32.multiply(
            rows,
            depth,
            columns,
            matrix,
            &panels,
            &mut out,
            columns,
            Write::Replace,
        );
    });
    black_box(&out);
    let bytes = 4.0 * (rows * depth + depth * columns + rows * columns) as f64;
    print(
        &format!("product, {name}"),
        multiplying,
        2.0 * (rows * depth * columns) as f64,
        bytes,
    );
    print(
        &format!("packing, {name}"),
        packing,
        0.0,
        8.0 * (depth * columns) as f64,
    );
}

fn attention_kernels(dropout: Option<Dropout>, name: &str) {
    let heads = 4;
    let offsets: Vec<u32> = (0..=TOKENS as u32 / LENGTH as u32)
        .map(|index| index * LENGTH as u32)
        .collect();
    let attention = Attention {
        hidden: HIDDEN,
        heads,
        causal: false,
        query_offsets: &offsets,
        key_offsets: &offsets,
        dropout,
        rows: Rows::from(0),
        precision: Precision::F32,
    };
    let projected = values(3 * TOKENS * HIDDEN);
    let mut probabilities = vec![0.0; probabilities_length(heads, &offsets, &offsets)];
    let mut context = vec![0.0; TOKENS * HIDDEN];
    let mut gradient = vec![0.0; 3 * TOKENS * HIDDEN];
    let mut scratch = AttentionScratch::default();
    let forward = seconds(|| {
        attention::forward(
            attention,
            Operands::Own(&projected),
            &mut probabilities,
            &mut context,
            &mut scratch,
        );
    });
    let outer = values(TOKENS * HIDDEN);
    let backward = seconds(|| {
        attention::backward(
            attention,
            Operands::Own(&projected),
            &probabilities,
            &outer,
            OperandGradients::Own(&mut gradient),
            &mut scratch,
        );
    });
    let operations = 4.0 * (TOKENS * LENGTH * HIDDEN) as f64;
    print(
        &format!("attention forward{name}"),
        forward,
        operations,
        16.0 * (TOKENS * HIDDEN) as f64,
    );
    print(
        &format!("attention backward{name}"),
        backward,
        2.0 * operations,
        32.0 * (TOKENS * HIDDEN) as f64,
    );
}

fn normalisation(dropout: Option<Dropout>, name: &str) {
    let (residual, update) = (values(TOKENS * HIDDEN), values(TOKENS * HIDDEN));
    let parameters = values(HIDDEN);
    let mut normalised = vec![0.0; TOKENS * HIDDEN];
    let mut inverse = vec![0.0; TOKENS];
    let mut out = vec![0.0; TOKENS * HIDDEN];
    let forward = seconds(|| {
        vectorised(NormaliseResidual {
            residual: &residual,
            update: &update,
            bias: &parameters,
            dropout,
            rows: Rows::from(0),
            scale: &parameters,
            shift: &parameters,
            normalised: &mut normalised,
            inverse: &mut inverse,
            out: &mut out,
        });
    });
    let mut gradients = vec![vec![0.0; HIDDEN]; 3];
    let [bias, scale, shift] = gradients.as_mut_slice() else {
        unreachable!()
    };
    let mut gradient = values(TOKENS * HIDDEN);
    let backward = seconds(|| {
        vectorised(NormaliseResidualBackward {
            gradient: &mut gradient,
            normalised: &normalised,
            inverse: &inverse,
            dropout,
            rows: Rows::from(0),
            scale: &parameters,
            update_gradient: &mut out,
            bias_gradient: bias,
            scale_gradient: scale,
            shift_gradient: shift,
        });
    });
    let bytes = 4.0 * (TOKENS * HIDDEN) as f64;
    print(
        &format!("residual and normalisation forward{name}"),
        forward,
        0.0,
        4.0 * bytes,
    );
    print(
        &format!("residual and normalisation backward{name}"),
        backward,
        0.0,
        4.0 * bytes,
    );
}

fn vocabulary() {
    let (table, bias) = (values(VOCABULARY * HIDDEN), values(VOCABULARY));
    let output = Output {
        table: &table,
        bias: &bias,
        hidden: HIDDEN,
        precision: Precision::F32,
    };
    let states = values(TARGETS * HIDDEN);
    let labels: Vec<u32> = (0..TARGETS as u32).map(|index| 97 * index).collect();
    let mut scratch = VocabularyScratch::default();
    let operations = 2.0 * (TARGETS * VOCABULARY * HIDDEN) as f64;
    let bytes = 4.0 * (VOCABULARY * HIDDEN) as f64;
    let logits = seconds(|| {
        black_box(loss(output, &states, &labels, 1.0, &mut scratch));
    });
    print("vocabulary: logits and loss", logits, operations, bytes);
    let mut gradient = vec![0.0; TARGETS * HIDDEN];
    let (mut of_table, mut of_bias) = (vec![0.0; VOCABULARY * HIDDEN], vec![0.0; VOCABULARY]);
    let all = seconds(|| {
        black_box(loss(output, &states, &labels, 1.0, &mut scratch));
        states_gradient(output, TARGETS, &mut gradient, &mut scratch);
        add_table_gradient(
            output,
            &states,
            TARGETS,
            &mut of_table,
            &mut of_bias,
            &mut scratch,
        );
    });
    print(
        "vocabulary: loss and gradients",
        all,
        3.0 * operations,
        4.0 * bytes,
    );
}

fn main() {
    let dropout = Dropout::new(0.1, 1, 1, 0, 0);
    product("query, key, value", TOKENS, HIDDEN, 3 * HIDDEN, false);
    product("inner", TOKENS, HIDDEN, FEED_FORWARD, false);
    product("outer", TOKENS, FEED_FORWARD, HIDDEN, false);
    product("gradient of inner", FEED_FORWARD, TOKENS, HIDDEN, true);
    product("gradient of outer", HIDDEN, TOKENS, FEED_FORWARD, true);
    product("gradient of inner, hidden 512", 2048, 512, 512, true);
    product("scores of a head", LENGTH, 64, LENGTH, false);
    attention_kernels(None, "");
    attention_kernels(dropout, ", dropout");
    normalisation(None, "");
    normalisation(dropout, ", dropout");
    let (mut inner, mut slopes) = (
        values(TOKENS * FEED_FORWARD),
        vec![0.0; TOKENS * FEED_FORWARD],
    );
    let bias = values(FEED_FORWARD);
    let gelu = seconds(|| {
        vectorised(Gelu {
            values: &mut inner,
            slopes: Some(&mut slopes),
            bias: &bias,
        });
    });
    print(
        "GELU and its derivative",
        gelu,
        0.0,
        12.0 * (TOKENS * FEED_FORWARD) as f64,
    );
    vocabulary();
    let length = 1 << 20;
    let mut buffers = vec![values(length); 4];
    let [parameters, gradient, first, second] = buffers.as_mut_slice() else {
        unreachable!()
    };
    second
        .iter_mut()
        .for_each(|value| *value = value.abs() + 0.1);
    let update = Update {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-8,
        weight_decay: 0.0,
        correction1: 1.0,
        correction2: 1.0,
        gradient_scale: 1.0,
    };
    let adam = seconds(|| {
        vectorised(Adam {
            update,
            parameters,
            gradient,
            first,
            second,
        });
    });
    print("Adam, 1 M parameters", adam, 0.0, 32.0 * length as f64);
}
