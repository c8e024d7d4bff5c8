//! Matrix products in f32: out[i, j] (+)= sum over p of left[i, p] * right[p, j].
//!
//! The right operand is packed into panels of 32 columns (a last panel of 16 when that is enough), each stored as
//! [depth][32], so that a register tile reads whole cache lines; the left operand is read one value at a time and
//! broadcast, in place, or from strips of rows where it is transposed: the same column of many rows would fall into
//! the same sets of the cache. Each element is one chain of fused multiply-adds over p: its bits do not depend on the
//! size of the product it is part of, nor on tiles, blocks and strips. With bfloat16 operands are rounded when they are
//! packed, left ones too.

use std::cell::Cell;
use std::ops::Range;

use super::lanes::{Kernel, LANES, Lanes, SINGLE_VECTOR_ROWS, vectorised};

/// The arithmetic of matrix products in the encoder; all else is 32-bit floating point.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// Operands of matrix products rounded to bfloat16, sums and everything else in 32 bits, as mixed precision trains.
    Bf16,
}

impl Precision {
    pub fn is_f32(&self) -> bool {
        *self == Precision::F32
    }
}

/// The nearest bfloat16, ties to even, as an f32; a NaN stays one.
#[inline(always)]
pub(super) fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
    let nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    f32::from_bits(if nan { bits } else { nearest })
}

/// Columns of a full panel.
pub const PANEL: usize = 2 * LANES;

/// Rows of the left operand and of the output that meet all panels before the next come: half of a second-level cache
/// of 512 KiB for depths of 256, and whole tiles of six or eight rows. Chosen by measurement.
const BLOCK_ROWS: usize = 192;

/// Panels of at most this many values stay in the cache themselves: rows are then taken a tile at a time, so that the
/// output is written line after line. Chosen by measurement.
const FEW_PANELS: usize = 1 << 14;

thread_local! {
    /// Memory for the strips of a block.
    static STRIPS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Length of the panels of a [depth, columns] matrix.
pub fn packed_length(depth: usize, columns: usize) -> usize {
    depth * columns.next_multiple_of(LANES)
}

/// Where the panel that starts at `column` lies, and its width.
#[inline(always)]
pub fn panel(depth: usize, columns: usize, column: usize) -> (usize, usize) {
    let width = if columns - column > LANES {
        PANEL
    } else {
        LANES
    };
    (column * depth, width)
}

/// A matrix read in place: element (i, p) is `values[i * row_stride + p * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `width` values.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Matrix {
            values,
            row_stride: width,
            column_stride: 1,
        }
    }

    /// The transpose of rows of `width` values.
    pub fn columns(values: &'a [f32], width: usize) -> Self {
        Matrix {
            values,
            row_stride: 1,
            column_stride: width,
        }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

impl Precision {
    /// Packs a right operand of shape [depth, columns]; missing columns are zero.
    pub fn pack(self, right: Matrix, depth: usize, columns: usize, panels: &mut [f32]) {
        assert!(right.holds(depth, columns) && panels.len() >= packed_length(depth, columns));
        vectorised(Pack {
            right,
            depth,
            columns,
            panels,
            round: self == Precision::Bf16,
        });
    }
}

struct Pack<'a> {
    right: Matrix<'a>,
    depth: usize,
    columns: usize,
    panels: &'a mut [f32],
    round: bool,
}

impl Kernel for Pack<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(self) {
        let Matrix {
            values,
            row_stride,
            column_stride,
        } = self.right;
        let mut column = 0;
        while column < self.columns {
            let (start, width) = panel(self.depth, self.columns, column);
            let filled = width.min(self.columns - column);
            let panel = &mut self.panels[start..start + width * self.depth];
            match (column_stride, width) {
                (1, PANEL) if filled == PANEL => {
                    pack_lines::<PANEL>(panel, values, column, row_stride)
                }
                (1, LANES) if filled == LANES => {
                    pack_lines::<LANES>(panel, values, column, row_stride)
                }
                (1, _) => {
                    for (p, line) in panel.chunks_exact_mut(width).enumerate() {
                        let from = p * row_stride + column;
                        line[..filled].copy_from_slice(&values[from..from + filled]);
                        line[filled..].fill(0.0);
                    }
                }
                _ => {
                    for line in panel.chunks_exact_mut(width) {
                        line[filled..].fill(0.0);
                    }
                    for c in 0..filled {
                        let column = &values[(column + c) * column_stride..];
                        pack_column(panel, width, c, column, row_stride, self.depth);
                    }
                }
            }
            if self.round {
                for value in panel {
                    *value = rounded(*value);
                }
            }
            column += width;
        }
    }
}

/// Lines of a fixed width, which need no call to copy.
#[inline(always)]
fn pack_lines<const WIDTH: usize>(
    panel: &mut [f32],
    values: &[f32],
    column: usize,
    row_stride: usize,
) {
    for (p, line) in panel.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        if let Some(from) = values[p * row_stride + column..].first_chunk::<WIDTH>() {
            *line = *from;
        }
    }
}

/// One column of a transposed operand, sixteen values at a time.
#[inline(always)]
fn pack_column(
    panel: &mut [f32],
    width: usize,
    c: usize,
    column: &[f32],
    row_stride: usize,
    depth: usize,
) {
    let mut row = 0;
    if row_stride == 1 {
        for (block, lanes) in column[..depth].as_chunks::<LANES>().0.iter().enumerate() {
            let lines = &mut panel[block * LANES * width..(block + 1) * LANES * width];
            for q in 0..LANES {
                lines[q * width + c] = lanes[q];
            }
        }
        row = depth - depth % LANES;
    }
    for row in row..depth {
        panel[row * width + c] = column[row * row_stride];
    }
}

/// Whether a product replaces what is in its output or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Replace,
    Add,
}

impl Precision {
    /// out[i * out_stride + j] (+)= sum over p of left[i, p] * right[p, j] for i < rows, j < columns; `panels` is the
    /// right operand packed in the same precision.
    #[allow(clippy::too_many_arguments)]
    pub fn multiply(
        self,
        rows: usize,
        depth: usize,
        columns: usize,
        left: Matrix,
        panels: &[f32],
        out: &mut [f32],
        out_stride: usize,
        write: Write,
    ) {
        self.multiply_lines(
            rows,
            0..depth,
            columns,
            left,
            panels,
            depth,
            out,
            out_stride,
            write,
        );
    }

    /// As [`Precision::multiply`] with some consecutive lines of panels that have `stored` lines each.
    #[allow(clippy::too_many_arguments)]
    pub fn multiply_lines(
        self,
        rows: usize,
        lines: Range<usize>,
        columns: usize,
        left: Matrix,
        panels: &[f32],
        stored: usize,
        out: &mut [f32],
        out_stride: usize,
        write: Write,
    ) {
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(!lines.is_empty(), "a product of no depth");
        assert!(left.holds(rows, lines.len()), "left operand too short");
        assert!(
            lines.end <= stored && panels.len() >= packed_length(stored, columns),
            "panels too short"
        );
        assert!(
            (rows - 1) * out_stride + columns <= out.len(),
            "output too short"
        );
        let round = self == Precision::Bf16;
        vectorised(Multiply {
            rows,
            depth: lines.len(),
            columns,
            left,
            in_strips: round || left.column_stride != 1,
            round,
            panels,
            stored,
            first_line: lines.start,
            out,
            out_stride,
            write,
        });
    }
}

struct Multiply<'a> {
    rows: usize,
    depth: usize,
    columns: usize,
    left: Matrix<'a>,
    /// Whether rows of the left operand are copied to strips, and rounded there.
    in_strips: bool,
    round: bool,
    panels: &'a [f32],
    /// Lines of a panel, and the first that is used.
    stored: usize,
    first_line: usize,
    out: &'a mut [f32],
    out_stride: usize,
    write: Write,
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(mut self) {
        let (rows, given) = (self.rows, self.left);
        let mut strips = if self.in_strips {
            STRIPS.take()
        } else {
            Vec::new()
        };
        let block_rows = if self.depth * self.columns <= FEW_PANELS {
            ROWS
        } else {
            BLOCK_ROWS
        };
        for first in (0..rows).step_by(block_rows) {
            let block = first..rows.min(first + block_rows);
            let left = if self.in_strips {
                pack_strips::<ROWS>(given, block.clone(), self.depth, self.round, &mut strips);
                Left {
                    values: strips.as_ptr(),
                    strip: ROWS,
                    row_stride: 1,
                    column_stride: ROWS,
                }
            } else {
                Left {
                    values: given.values[first * given.row_stride..].as_ptr(),
                    strip: usize::MAX,
                    row_stride: given.row_stride,
                    column_stride: given.column_stride,
                }
            };
            self.panels_of_block::<ROWS>(left, block.clone());
        }
        if self.in_strips {
            STRIPS.set(strips);
        }
    }
}

/// The rows of a block, in place or in strips of `strip` rows, each [depth][strip].
#[derive(Clone, Copy)]
struct Left {
    values: *const f32,
    strip: usize,
    row_stride: usize,
    column_stride: usize,
}

/// One or two vectors of columns of a panel, and the output columns they stand for.
#[derive(Clone, Copy)]
struct Target {
    panel: *const f32,
    /// Values between two lines of the panel.
    line: usize,
    column: usize,
    columns: usize,
}

impl Multiply<'_> {
    #[inline(always)]
    fn panels_of_block<const ROWS: usize>(&mut self, left: Left, block: Range<usize>) {
        let (panels, columns) = (self.panels, self.columns);
        let mut column = 0;
        while column < columns {
            let (start, width) = panel(self.stored, columns, column);
            let start = start + self.first_line * width;
            let target = |first: usize, vectors: usize| Target {
                panel: panels[start + first..].as_ptr(),
                line: width,
                column: column + first,
                columns: (vectors * LANES).min(columns - column - first),
            };
            if width == PANEL && ROWS != SINGLE_VECTOR_ROWS {
                tiles::<ROWS, 2>(self, left, target(0, 2), block.clone());
            } else {
                for first in (0..width.min(columns - column)).step_by(LANES) {
                    tiles::<ROWS, 1>(self, left, target(first, 1), block.clone());
                }
            }
            column += width;
        }
    }
}

/// Copies rows of an operand into strips of `ROWS`; missing rows are zero.
#[inline(always)]
fn pack_strips<const ROWS: usize>(
    left: Matrix,
    block: Range<usize>,
    depth: usize,
    round: bool,
    strips: &mut Vec<f32>,
) {
    let length = block.len().next_multiple_of(ROWS) * depth;
    if strips.len() < length {
        strips.resize(length, 0.0);
    }
    let lines = strips[..length].chunks_exact_mut(ROWS * depth.max(1));
    for (strip, first) in lines.zip(block.clone().step_by(ROWS)) {
        let filled = ROWS.min(block.end - first);
        for (p, line) in strip.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let column = &left.values[first * left.row_stride + p * left.column_stride..];
            match column.first_chunk::<ROWS>() {
                Some(values) if filled == ROWS && left.row_stride == 1 => *line = *values,
                _ => {
                    for i in 0..ROWS {
                        line[i] = if i < filled {
                            column[i * left.row_stride]
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
        if round {
            for value in strip {
                *value = rounded(*value);
            }
        }
    }
}

#[inline(always)]
fn tiles<const ROWS: usize, const VECTORS: usize>(
    product: &mut Multiply,
    left: Left,
    target: Target,
    block: Range<usize>,
) {
    let rows = block.len();
    let mut row = 0;
    while row + ROWS <= rows {
        tile::<ROWS, VECTORS>(product, left, target, block.start, row);
        row += ROWS;
    }
    if ROWS > 4 && row + 4 <= rows {
        tile::<4, VECTORS>(product, left, target, block.start, row);
        row += 4;
    }
    if ROWS > 2 && row + 2 <= rows {
        tile::<2, VECTORS>(product, left, target, block.start, row);
        row += 2;
    }
    if row < rows {
        tile::<1, VECTORS>(product, left, target, block.start, row);
    }
}

/// `row` counts from the start of the block.
#[inline(always)]
fn tile<const ROWS: usize, const VECTORS: usize>(
    product: &mut Multiply,
    left: Left,
    target: Target,
    block_start: usize,
    row: usize,
) {
    let Left {
        values,
        strip,
        row_stride,
        column_stride,
    } = left;
    let mut sums = [[[0f32; LANES]; VECTORS]; ROWS];
    // Safety: `multiply` checked that the left operand holds [rows, depth] and the panels [depth, columns padded]; a
    // tile lies within one strip.
    unsafe {
        let left = match strip {
            usize::MAX => values.add(row * row_stride),
            _ => values.add(row / strip * strip * product.depth + row % strip),
        };
        for p in 0..product.depth {
            let line = target.panel.add(p * target.line);
            let mut right = [[0f32; LANES]; VECTORS];
            for v in 0..VECTORS {
                right[v] = line.add(v * LANES).cast::<Lanes>().read();
            }
            for i in 0..ROWS {
                let value = left.add(i * row_stride + p * column_stride).read();
                for v in 0..VECTORS {
                    for lane in 0..LANES {
                        sums[i][v][lane] = value.mul_add(right[v][lane], sums[i][v][lane]);
                    }
                }
            }
        }
    }
    let row = block_start + row;
    let add = product.write == Write::Add;
    let out = &mut product.out[row * product.out_stride + target.column..];
    if target.columns == VECTORS * LANES {
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // Safety: `multiply` checked the output's extent.
                unsafe {
                    let place = out
                        .as_mut_ptr()
                        .add(i * product.out_stride + v * LANES)
                        .cast::<Lanes>();
                    if add {
                        let before = place.read();
                        for lane in 0..LANES {
                            sums[i][v][lane] += before[lane];
                        }
                    }
                    place.write(sums[i][v]);
                }
            }
        }
    } else {
        // A copy: indexing by a variable would keep the sums out of registers.
        let sums = sums;
        for (i, row) in sums.iter().enumerate() {
            let line = &mut out[i * product.out_stride..][..target.columns];
            for (j, place) in line.iter_mut().enumerate() {
                let sum = row[j / LANES][j % LANES];
                // Adding zero would turn a negative zero, which whole tiles keep.
                *place = if add { sum + *place } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn random(length: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, "matrix", 0);
        (0..length).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn products_of_every_orientation_and_tail_agree_with_the_definition() {
        for (rows, depth, columns) in [
            (1, 1, 1),
            (3, 5, 7),
            (8, 16, 32),
            (13, 9, 47),
            (22, 33, 65),
            (31, 4, 16),
        ] {
            let a = random(rows * depth, 1);
            let b = random(depth * columns, 2);
            for (left_transposed, right_transposed) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let left = if left_transposed {
                    Matrix::columns(&a, rows)
                } else {
                    Matrix::rows(&a, depth)
                };
                let right = if right_transposed {
                    Matrix::columns(&b, depth)
                } else {
                    Matrix::rows(&b, columns)
                };
                let mut panels = vec![f32::NAN; packed_length(depth, columns)];
                Precision::F32.pack(right, depth, columns, &mut panels);
                let stride = columns + 3;
                let mut out = vec![1.0; rows * stride];
                Precision::F32.multiply(
                    rows,
                    depth,
                    columns,
                    left,
                    &panels,
                    &mut out,
                    stride,
                    Write::Add,
                );
                for i in 0..rows {
                    for j in 0..columns {
                        let truth: f64 = (0..depth)
                            .map(|p| {
                                f64::from(a[i * left.row_stride + p * left.column_stride])
                                    * f64::from(b[p * right.row_stride + j * right.column_stride])
                            })
                            .sum();
                        assert!((f64::from(out[i * stride + j]) - 1.0 - truth).abs() < 1e-4);
                    }
                    assert!(
                        i + 1 == rows || out[i * stride + columns..(i + 1) * stride] == [1.0; 3]
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_a_batch() {
        let (rows, depth, columns) = (21, 50, 70);
        let a = random(rows * depth, 3);
        let b = random(depth * columns, 4);
        let mut panels = vec![0.0; packed_length(depth, columns)];
        Precision::F32.pack(Matrix::rows(&b, columns), depth, columns, &mut panels);
        let mut all = vec![0.0; rows * columns];
        Precision::F32.multiply(
            rows,
            depth,
            columns,
            Matrix::rows(&a, depth),
            &panels,
            &mut all,
            columns,
            Write::Replace,
        );
        let mut one = vec![0.0; columns];
        for i in 0..rows {
            let row = Matrix::rows(&a[i * depth..], depth);
            Precision::F32.multiply(
                1,
                depth,
                columns,
                row,
                &panels,
                &mut one,
                columns,
                Write::Replace,
            );
            assert_eq!(one, all[i * columns..(i + 1) * columns]);
        }
    }

    /// Tiles of every height that an instruction set may ask for, over blocks, strips and their tails.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for (rows, depth, columns) in [
            (1, 3, 1),
            (21, 50, 70),
            (BLOCK_ROWS + 13, 40, 17),
            (2 * BLOCK_ROWS + 13, 700, 33),
        ] {
            let a = random(rows * depth, 5);
            let b = random(depth * columns, 6);
            for (transposed, precision) in [
                (false, Precision::F32),
                (true, Precision::F32),
                (false, Precision::Bf16),
                (true, Precision::Bf16),
            ] {
                let left = if transposed {
                    Matrix::columns(&a, rows)
                } else {
                    Matrix::rows(&a, depth)
                };
                let mut panels = vec![0.0; packed_length(depth, columns)];
                precision.pack(Matrix::rows(&b, columns), depth, columns, &mut panels);
                let product = |run: fn(Multiply)| {
                    let mut out = vec![1.0; rows * columns];
                    run(Multiply {
                        rows,
                        depth,
                        columns,
                        left,
                        in_strips: transposed || !precision.is_f32(),
                        round: !precision.is_f32(),
                        panels: &panels,
                        stored: depth,
                        first_line: 0,
                        out: &mut out,
                        out_stride: columns,
                        write: Write::Add,
                    });
                    out
                };
                let best = product(|kernel| vectorised(kernel));
                assert_eq!(best, product(|kernel| kernel.run::<2>()));
                assert_eq!(best, product(|kernel| kernel.run::<SINGLE_VECTOR_ROWS>()));
                assert_eq!(best, product(|kernel| kernel.run::<8>()));
            }
        }
    }

    #[test]
    fn some_lines_of_panels_are_a_product_of_their_own() {
        let (rows, depth, columns) = (19, 40, 45);
        let a = random(rows * depth, 9);
        let b = random(depth * columns, 10);
        let mut panels = vec![0.0; packed_length(depth, columns)];
        Precision::F32.pack(Matrix::rows(&b, columns), depth, columns, &mut panels);
        let lines = 13..30;
        let mut some = vec![0.0; rows * columns];
        Precision::F32.multiply_lines(
            rows,
            lines.clone(),
            columns,
            Matrix::rows(&a[lines.start..], depth),
            &panels,
            depth,
            &mut some,
            columns,
            Write::Replace,
        );
        let right = Matrix::rows(&b[lines.start * columns..], columns);
        let mut own = vec![0.0; packed_length(lines.len(), columns)];
        Precision::F32.pack(right, lines.len(), columns, &mut own);
        let mut expected = vec![0.0; rows * columns];
        Precision::F32.multiply(
            rows,
            lines.len(),
            columns,
            Matrix::rows(&a[lines.start..], depth),
            &own,
            &mut expected,
            columns,
            Write::Replace,
        );
        assert_eq!(some, expected);
    }

    #[test]
    fn operands_are_rounded_to_the_nearest_bfloat16_and_sums_are_not() {
        for (value, nearest) in [
            (1.0, 1.0),
            // 2^-8 is half of the last place: ties go to even.
            (1.0 + 2f32.powi(-8), 1.0),
            (1.011_718_8, 1.015_625),
            (1.005, 1.007_812_5),
            (-3.2, -3.203_125),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (0.0, 0.0),
        ] {
            assert_eq!(rounded(value), nearest, "{value}");
        }
        assert!(rounded(f32::from_bits(0x7F80_0001)).is_nan());
        let (rows, depth, columns) = (21, 50, 70);
        let (a, b) = (random(rows * depth, 7), random(depth * columns, 8));
        let product = |precision: Precision, a: &[f32], b: &[f32]| {
            let mut panels = vec![0.0; packed_length(depth, columns)];
            precision.pack(Matrix::rows(b, columns), depth, columns, &mut panels);
            let mut out = vec![0.0; rows * columns];
            let left = Matrix::rows(a, depth);
            precision.multiply(
                rows,
                depth,
                columns,
                left,
                &panels,
                &mut out,
                columns,
                Write::Replace,
            );
            out
        };
        let round = |values: &[f32]| {
            values
                .iter()
                .map(|value| rounded(*value))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            product(Precision::Bf16, &a, &b),
            product(Precision::F32, &round(&a), &round(&b))
        );
        assert_ne!(
            product(Precision::Bf16, &a, &b),
            product(Precision::F32, &a, &b)
        );
    }
}
