//! The kernels' calls: one function each, which knows the grid, the shared memory and the order of arguments.
//!
//! Addresses are of buffers that hold as many elements as the sizes say; rows are multiples of eight elements wide. That is the
//! caller's duty, as it is with a matrix product's pointers: only the trunk and the trainer call these.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::driver::{
    Argument, AttentionArgument, Driver, DropoutArgument, Element, Launch, Product, Side,
};
use crate::kernels::adam::{CHUNK, Update};
use crate::kernels::dropout::Dropout;

use Argument::{Address, Float, Integer, Long};

/// Rows of a sequence that one block of attention takes: TILE in source/attention.cu.
pub const TILE: usize = 64;

/// The widest rows that a warp normalises, and the widest heads whose tiles fit shared memory.
const WIDEST: usize = 2048;
const WIDEST_HEAD: usize = 128;

/// Rows that are summed one after the other in a gradient of embeddings. Ours.
pub const SEGMENT: usize = 64;

/// The card has no room for what was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the card's memory is full: {} MB more were asked for, {} of {} MB are free; \
     lower the tokens of a batch or the model's sizes, run fewer jobs on it, or use a larger card",
    wanted / 1_000_000, free / 1_000_000, all / 1_000_000
)]
pub struct OutOfMemory {
    pub wanted: u64,
    pub free: u64,
    pub all: u64,
}

/// A card whose activations are of one type.
#[derive(Clone)]
pub struct Operations {
    pub driver: Arc<dyn Driver>,
    pub element: Element,
}

/// What normalised rows are read from and written to: [rows, width], with a deviation for each row.
#[derive(Clone, Copy)]
pub struct Rows {
    pub rows: usize,
    pub width: usize,
    pub normalised: u64,
    pub inverse: u64,
    pub scale: u64,
    pub dropout: Option<Dropout>,
    pub first_row: u64,
}

/// Queries, keys and values with the distance of their rows.
#[derive(Clone, Copy)]
pub struct Operands {
    pub query: u64,
    pub query_stride: usize,
    pub key: u64,
    pub value: u64,
    pub key_stride: usize,
}

/// The sequences and the sizes of an attention.
#[derive(Clone, Copy)]
pub struct Attention {
    pub heads: usize,
    pub width: usize,
    pub causal: bool,
    /// Queries in all.
    pub tokens: usize,
    pub dropout: Option<Dropout>,
    pub first_row: u64,
    pub query_offsets: u64,
    pub key_offsets: u64,
    pub query_tiles: (u64, usize),
    pub key_tiles: (u64, usize),
}

fn dropout_argument(dropout: Option<Dropout>) -> Argument {
    Argument::Dropout(dropout.map_or_else(DropoutArgument::default, |dropout| {
        let (key, threshold) = dropout.parts();
        DropoutArgument {
            key,
            threshold,
            scale: dropout.scale,
        }
    }))
}

/// Shared memory of attention on ordinary cores: tiles in f32, and weights.
fn lanes_shared(tiles: usize, width: usize) -> usize {
    (tiles * TILE * (width + 1) + TILE * TILE) * 4
}

fn integer(value: usize) -> Argument {
    Integer(value as i32)
}

impl Operations {
    fn launch(
        &self,
        kernel: &str,
        grid: [usize; 2],
        block: [u32; 2],
        shared: usize,
        arguments: &[Argument],
    ) -> Result<()> {
        let [x, y] = grid;
        if x == 0 || y == 0 {
            return Ok(());
        }
        let launch = Launch {
            kernel,
            grid: [x as u32, y as u32, 1],
            block: [block[0], block[1], 1],
            shared,
        };
        // Safety: arguments in the kernel's order, over buffers that the callers have reserved.
        unsafe { self.driver.launch(&launch, arguments) }
    }

    /// A kernel for the type of the activations.
    fn typed(&self, kernel: &str) -> String {
        format!("{kernel}_{}", self.element.name())
    }

    /// A kernel for rows of a width.
    fn by_width(&self, kernel: &str, width: usize) -> String {
        let quads = width.div_ceil(128).next_power_of_two();
        format!("{kernel}_{}_{quads}", self.element.name())
    }

    /// Whether the kernels can run a model of these sizes.
    pub fn check_sizes(&self, hidden: usize, heads: usize, feed_forward: usize) -> Result<()> {
        ensure!(
            hidden.is_multiple_of(8)
                && feed_forward.is_multiple_of(8)
                && hidden <= WIDEST
                && hidden <= heads * WIDEST_HEAD,
            "a card runs models whose `hidden` and `feed_forward` are multiples of 8, `hidden` at most {WIDEST}, a head at most \
             {WIDEST_HEAD} wide; this one has {hidden}, {feed_forward} and {heads} heads: change them or use `--device cpu`"
        );
        let width = hidden / heads.max(1);
        let shared = match self.by_tiles(width) {
            true => 0,
            false => lanes_shared(4, width),
        };
        ensure!(
            shared <= self.driver.shared_memory(),
            "heads {width} wide take {shared} bytes of a block's shared memory, and {} has {}; use narrower heads, \
             heads of 32, 64 or 128 with `precision: bf16`, or `--device cpu`",
            self.driver.name(),
            self.driver.shared_memory()
        );
        Ok(())
    }

    /// Blocks whose sums of columns are added up later: as many as run side by side.
    fn row_blocks(&self, rows: usize, width: usize) -> usize {
        let each = if width > 512 { 1 } else { 2 };
        rows.div_ceil(8).min(each * self.driver.processors())
    }

    fn column_blocks(&self, rows: usize, width: usize) -> [usize; 2] {
        let across = width.div_ceil(128);
        let down = (8 * self.driver.processors() / across).max(1);
        [across, down.min(rows.div_ceil(8))]
    }

    /// Elements of partial sums that any kernel over so many rows, at most `widest` wide, leaves.
    pub fn partials_length(&self, rows: usize, hidden: usize, widest: usize) -> usize {
        // Of columns: `down` times a width of at most 128 times `across`.
        let columns = (1024 * self.driver.processors()).max(widest);
        (3 * hidden * self.row_blocks(rows, hidden)).max(columns)
    }

    pub fn normalise_residual(
        &self,
        rows: Rows,
        [residual, update, bias, shift, out]: [u64; 5],
    ) -> Result<()> {
        self.launch(
            &self.by_width("normalise_residual", rows.width),
            [rows.rows.div_ceil(8), 1],
            [256, 1],
            0,
            &[
                Address(residual),
                Address(update),
                Address(bias),
                dropout_argument(rows.dropout),
                Long(rows.first_row),
                Address(rows.scale),
                Address(shift),
                Address(rows.normalised),
                Address(rows.inverse),
                Address(out),
                integer(rows.rows),
                integer(rows.width),
            ],
        )
    }

    /// Adds to the gradients of scale, shift and bias; an address of zero is of a parameter that is not trained.
    pub fn normalise_backward(
        &self,
        rows: Rows,
        gradient: u64,
        update_gradient: u64,
        partials: u64,
        parameters: [u64; 3],
    ) -> Result<()> {
        let blocks = self.row_blocks(rows.rows, rows.width);
        self.launch(
            &self.by_width("normalise_backward", rows.width),
            [blocks, 1],
            [256, 1],
            8 * rows.width * 4,
            &[
                Address(gradient),
                Address(rows.normalised),
                Address(rows.inverse),
                dropout_argument(rows.dropout),
                Long(rows.first_row),
                Address(rows.scale),
                Address(update_gradient),
                Address(partials),
                integer(rows.rows),
                integer(rows.width),
            ],
        )?;
        self.add_partials(partials, [blocks, 3 * rows.width], rows.width, &parameters)
    }

    /// Three tables with the lookups into them; the language's may be zero.
    pub fn normalise_embeddings(
        &self,
        rows: Rows,
        tables: [(u64, u64); 3],
        [shift, out]: [u64; 2],
    ) -> Result<()> {
        let [token, position, language] = tables;
        self.launch(
            &self.by_width("normalise_embeddings", rows.width),
            [rows.rows.div_ceil(8), 1],
            [256, 1],
            0,
            &[
                Address(token.0),
                Address(token.1),
                Address(position.0),
                Address(position.1),
                Address(language.0),
                Address(language.1),
                dropout_argument(rows.dropout),
                Long(rows.first_row),
                Address(rows.scale),
                Address(shift),
                Address(rows.normalised),
                Address(rows.inverse),
                Address(out),
                integer(rows.rows),
                integer(rows.width),
            ],
        )
    }

    pub fn embeddings_backward(
        &self,
        rows: Rows,
        gradient: u64,
        partials: u64,
        [scale, shift]: [u64; 2],
    ) -> Result<()> {
        let blocks = self.row_blocks(rows.rows, rows.width);
        self.launch(
            &self.by_width("embeddings_backward", rows.width),
            [blocks, 1],
            [256, 1],
            8 * rows.width * 4,
            &[
                Address(gradient),
                Address(rows.normalised),
                Address(rows.inverse),
                dropout_argument(rows.dropout),
                Long(rows.first_row),
                Address(rows.scale),
                Address(partials),
                integer(rows.rows),
                integer(rows.width),
            ],
        )?;
        self.add_partials(
            partials,
            [blocks, 3 * rows.width],
            rows.width,
            &[scale, shift],
        )
    }

    fn add_partials(
        &self,
        partials: u64,
        [count, stride]: [usize; 2],
        width: usize,
        targets: &[u64],
    ) -> Result<()> {
        let target = |index| Address(targets.get(index).copied().unwrap_or(0));
        self.launch(
            "add_partials_f32",
            [(targets.len() * width).div_ceil(32), 1],
            [32, 8],
            0,
            &[
                Address(partials),
                integer(count),
                integer(stride),
                integer(width),
                integer(targets.len()),
                target(0),
                target(1),
                target(2),
            ],
        )
    }

    pub fn gelu(&self, values: u64, bias: u64, out: u64, rows: usize, width: usize) -> Result<()> {
        self.launch(
            &self.typed("gelu"),
            [(rows * width / 4).div_ceil(256), 1],
            [256, 1],
            0,
            &[
                Address(values),
                Address(bias),
                Address(out),
                Long((rows * width) as u64),
                integer(width),
            ],
        )
    }

    pub fn gelu_backward(
        &self,
        [gradient, values, bias, partials, bias_gradient]: [u64; 5],
        rows: usize,
        width: usize,
    ) -> Result<()> {
        let grid = self.column_blocks(rows, width);
        self.launch(
            &self.typed("gelu_backward"),
            grid,
            [32, 8],
            0,
            &[
                Address(gradient),
                Address(values),
                Address(bias),
                Address(partials),
                integer(rows),
                integer(width),
            ],
        )?;
        self.add_partials(partials, [grid[1], width], width, &[bias_gradient])
    }

    /// sums += the sums of the first `width` columns of values [rows, stride].
    pub fn add_column_sums(
        &self,
        [values, partials, sums]: [u64; 3],
        rows: usize,
        [width, stride]: [usize; 2],
    ) -> Result<()> {
        let grid = self.column_blocks(rows, stride);
        self.launch(
            &self.typed("column_sums"),
            grid,
            [32, 8],
            0,
            &[
                Address(values),
                Address(partials),
                integer(rows),
                integer(stride),
            ],
        )?;
        self.add_partials(partials, [grid[1], stride], width, &[sums])
    }

    /// Whether tensor cores compute attention of this width.
    fn by_tiles(&self, width: usize) -> bool {
        self.element == Element::Bf16 && [32, 64, 128].contains(&width)
    }

    /// A kernel for heads of a width that ordinary cores compute.
    fn by_lanes(&self, kernel: &str, width: usize) -> String {
        let columns = width.div_ceil(32).next_power_of_two();
        format!("{kernel}_{}_{columns}", self.element.name())
    }

    fn attention(&self, a: &Attention, operands: &Operands, tiles: u64) -> Argument {
        let dropout = match dropout_argument(a.dropout) {
            Argument::Dropout(dropout) => dropout,
            _ => DropoutArgument::default(),
        };
        Argument::Attention(AttentionArgument {
            width: a.width as i32,
            heads: a.heads as i32,
            causal: i32::from(a.causal),
            tokens: a.tokens as i32,
            query_stride: operands.query_stride as i32,
            key_stride: operands.key_stride as i32,
            scale: 1.0 / (a.width as f32).sqrt(),
            dropout,
            first_row: a.first_row,
            query_offsets: a.query_offsets,
            key_offsets: a.key_offsets,
            tiles,
        })
    }

    /// Context [tokens, heads * width], and the logarithm of each query's denominator [heads, tokens] in f32.
    pub fn attention_forward(
        &self,
        a: &Attention,
        operands: &Operands,
        context: u64,
        logarithms: u64,
    ) -> Result<()> {
        let (tiles, count) = a.query_tiles;
        let arguments = [
            self.attention(a, operands, tiles),
            Address(operands.query),
            Address(operands.key),
            Address(operands.value),
            Address(context),
            Address(logarithms),
        ];
        let (name, shared) = match self.by_tiles(a.width) {
            true => (
                format!("attention_forward_tiles_{}", a.width),
                5 * TILE * (a.width + 8) * 2,
            ),
            false => (
                self.by_lanes("attention_forward", a.width),
                lanes_shared(3, a.width),
            ),
        };
        self.launch(&name, [count, a.heads], [128, 1], shared, &arguments)
    }

    /// Gradients of queries, keys and values, in the same places as these; `delta` [heads, tokens] is scratch.
    pub fn attention_backward(
        &self,
        a: &Attention,
        operands: &Operands,
        [context, context_gradient, logarithms, delta]: [u64; 4],
        [query, key, value]: [u64; 3],
    ) -> Result<()> {
        let arguments = |tiles, inputs: &[u64]| {
            let operands_first = [operands.query, operands.key, operands.value];
            let addresses = operands_first.into_iter().chain(inputs.iter().copied());
            let mut arguments = vec![self.attention(a, operands, tiles)];
            arguments.extend(addresses.map(Address));
            arguments
        };
        let grids = [[a.query_tiles.1, a.heads], [a.key_tiles.1, a.heads]];
        let of_key = [context_gradient, logarithms, delta, key, value];
        let of_key = arguments(a.key_tiles.0, &of_key);
        if self.by_tiles(a.width) {
            let columns = if a.width == 128 { 32 } else { 64 };
            let tiles = 2 * (TILE + 2 * columns) * (a.width + 8) * 2;
            let of_query = [context, context_gradient, logarithms, delta, query];
            let of_query = arguments(a.query_tiles.0, &of_query);
            let name = format!("attention_query_gradient_tiles_{}", a.width);
            self.launch(&name, grids[0], [128, 1], tiles + 4 * TILE, &of_query)?;
            let name = format!("attention_key_gradient_tiles_{}", a.width);
            let shared = tiles + 2 * 16 * columns;
            return self.launch(&name, grids[1], [128, 1], shared, &of_key);
        }
        self.launch(
            &self.typed("attention_delta"),
            [(a.tokens * a.heads).div_ceil(8), 1],
            [256, 1],
            0,
            &[
                Address(context),
                Address(context_gradient),
                Address(delta),
                integer(a.tokens),
                integer(a.heads),
                integer(a.width),
            ],
        )?;
        let of_query = arguments(
            a.query_tiles.0,
            &[context_gradient, logarithms, delta, query],
        );
        let shared = lanes_shared(4, a.width);
        let name = self.by_lanes("attention_query_gradient", a.width);
        self.launch(&name, grids[0], [128, 1], shared, &of_query)?;
        let name = self.by_lanes("attention_key_gradient", a.width);
        self.launch(&name, grids[1], [128, 1], shared, &of_key)
    }

    /// Loss and gradient of `rows` targets from logits [rows, stride] in f32. Without a gradient, of evaluation, its address is
    /// zero.
    pub fn cross_entropy(
        &self,
        [logits, bias, labels, gradient, nats, correct]: [u64; 6],
        weight: f32,
        rows: usize,
        vocabulary: usize,
        stride: usize,
    ) -> Result<()> {
        self.launch(
            &self.typed("cross_entropy"),
            [rows, 1],
            [256, 1],
            0,
            &[
                Address(logits),
                Address(bias),
                Address(labels),
                Float(weight),
                Address(gradient),
                Address(nats),
                Address(correct),
                integer(vocabulary),
                integer(stride),
                Integer(i32::from(gradient == 0)),
            ],
        )
    }

    /// total += the sum of values; a double.
    pub fn add_total(&self, values: u64, count: usize, total: u64) -> Result<()> {
        self.launch(
            "add_total_float",
            [1, 1],
            [256, 1],
            0,
            &[Address(values), Long(count as u64), Address(total)],
        )
    }

    /// total += the sum of squares; `sums` holds a double for each [`CHUNK`].
    pub fn add_squares(&self, values: u64, count: usize, sums: u64, total: u64) -> Result<()> {
        let chunks = count.div_ceil(CHUNK);
        self.launch(
            "sum_of_squares_f32",
            [chunks, 1],
            [256, 1],
            0,
            &[Address(values), Long(count as u64), Address(sums)],
        )?;
        self.launch(
            "add_total_double",
            [1, 1],
            [256, 1],
            0,
            &[Address(sums), Long(chunks as u64), Address(total)],
        )
    }

    /// One update of `count` parameters, a multiple of four; `rounded` may be zero.
    pub fn adam(
        &self,
        update: Update,
        [parameters, gradient, first, second, rounded]: [u64; 5],
        count: usize,
    ) -> Result<()> {
        self.launch(
            "adam_f32",
            [(count / 4).div_ceil(256), 1],
            [256, 1],
            0,
            &[
                Argument::Update(update),
                Address(parameters),
                Address(gradient),
                Address(first),
                Address(second),
                Address(rounded),
                Long(count as u64),
            ],
        )
    }

    /// to[i] = from[indices[i]]
    pub fn gather_rows(
        &self,
        [from, indices, to]: [u64; 3],
        rows: usize,
        width: usize,
    ) -> Result<()> {
        self.move_rows("gather_rows", [from, indices, to], rows, width)
    }

    /// to[indices[i]] = from[i]
    pub fn place_rows(
        &self,
        [from, indices, to]: [u64; 3],
        rows: usize,
        width: usize,
    ) -> Result<()> {
        self.move_rows("place_rows", [from, indices, to], rows, width)
    }

    fn move_rows(
        &self,
        kernel: &str,
        [from, indices, to]: [u64; 3],
        rows: usize,
        width: usize,
    ) -> Result<()> {
        self.launch(
            &self.typed(kernel),
            [rows, 1],
            [(width / 4).clamp(32, 256) as u32, 1],
            0,
            &[Address(from), Address(indices), Address(to), integer(width)],
        )
    }

    /// f32 values of activations; counts are multiples of four.
    pub fn to_float(&self, from: u64, to: u64, count: usize) -> Result<()> {
        self.convert("to_float", from, to, count)
    }

    pub fn from_float(&self, from: u64, to: u64, count: usize) -> Result<()> {
        self.convert("from_float", from, to, count)
    }

    /// to += from, which is in f32.
    pub fn add_float(&self, from: u64, to: u64, count: usize) -> Result<()> {
        self.convert("add_float", from, to, count)
    }

    fn convert(&self, kernel: &str, from: u64, to: u64, count: usize) -> Result<()> {
        self.launch(
            &self.typed(kernel),
            [(count / 4).div_ceil(256), 1],
            [256, 1],
            0,
            &[Address(from), Address(to), Long(count as u64)],
        )
    }

    /// partials[s] = sum of gradient[order[start .. end]] for each of `count` segments.
    pub fn sum_segments(
        &self,
        [gradient, order, segments, partials]: [u64; 4],
        count: usize,
        width: usize,
    ) -> Result<()> {
        self.launch(
            &self.typed("sum_segments"),
            [count, 1],
            [(width / 4).clamp(32, 256) as u32, 1],
            0,
            &[
                Address(gradient),
                Address(order),
                Address(segments),
                Address(partials),
                integer(width),
            ],
        )
    }

    /// Adds the sums of an entry's segments to its row of the table.
    pub fn add_segments(
        &self,
        [partials, entries, table]: [u64; 3],
        count: usize,
        width: usize,
    ) -> Result<()> {
        self.launch(
            "add_segments_f32",
            [count, 1],
            [(width / 4).clamp(32, 256) as u32, 1],
            0,
            &[
                Address(partials),
                Address(entries),
                Address(table),
                integer(width),
            ],
        )
    }

    /// out[rows, outputs] (+)= input[rows, inputs] . weight[outputs, inputs]^T (+ bias)
    #[allow(clippy::too_many_arguments)]
    pub fn linear(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        [input, weight, out]: [u64; 3],
        bias: Option<u64>,
        out_element: Element,
        out_stride: usize,
    ) -> Result<()> {
        self.multiply(Product {
            rows,
            depth: inputs,
            columns: outputs,
            left: by_rows(input, inputs),
            right: transposed(weight, inputs),
            element: self.element,
            out,
            out_stride,
            out_element,
            beta: 0.0,
            bias,
        })
    }

    /// input_gradient (+)= output_gradient . weight
    pub fn linear_backward(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        [output_gradient, weight, input_gradient]: [u64; 3],
        output_stride: usize,
        adds: bool,
    ) -> Result<()> {
        self.multiply(Product {
            rows,
            depth: outputs,
            columns: inputs,
            left: by_rows(output_gradient, output_stride),
            right: by_rows(weight, inputs),
            element: self.element,
            out: input_gradient,
            out_stride: inputs,
            out_element: self.element,
            beta: if adds { 1.0 } else { 0.0 },
            bias: None,
        })
    }

    /// weight_gradient (f32) += output_gradient^T . input
    pub fn weight_gradient(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        [output_gradient, input, weight_gradient]: [u64; 3],
        output_stride: usize,
    ) -> Result<()> {
        self.multiply(Product {
            rows: outputs,
            depth: rows,
            columns: inputs,
            left: transposed(output_gradient, output_stride),
            right: by_rows(input, inputs),
            element: self.element,
            out: weight_gradient,
            out_stride: inputs,
            out_element: Element::F32,
            beta: 1.0,
            bias: None,
        })
    }

    fn multiply(&self, product: Product) -> Result<()> {
        if product.rows == 0 || product.columns == 0 || product.depth == 0 {
            return Ok(());
        }
        // Safety: as for launches.
        unsafe { self.driver.multiply(&product) }
    }

    pub fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        // Safety: as for launches.
        unsafe { self.driver.clear(at, bytes) }
    }
}

fn by_rows(address: u64, stride: usize) -> Side {
    Side {
        address,
        stride,
        transposed: false,
    }
}

fn transposed(address: u64, stride: usize) -> Side {
    Side {
        transposed: true,
        ..by_rows(address, stride)
    }
}
