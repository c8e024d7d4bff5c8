//! Matrix products in f32: out[i, j] (+)= sum over p of left[i, p] * right[p, j].
//!
//! The right operand is packed into panels of 32 columns (a last panel of 16 when that is enough), each stored as
//! [depth][32], so that a register tile reads whole cache lines; the left operand is read in place, one value
//! broadcast at a time. Each element is one chain of fused multiply-adds over p: its bits do not depend on the
//! size of the product it is part of.

use super::lanes::{Kernel, LANES, Lanes, vectorised};

/// Columns of a full panel.
pub const PANEL: usize = 2 * LANES;

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

/// Packs a right operand of shape [depth, columns]; missing columns are zero.
pub fn pack(right: Matrix, depth: usize, columns: usize, panels: &mut [f32]) {
    assert!(right.holds(depth, columns) && panels.len() >= packed_length(depth, columns));
    vectorised(Pack {
        right,
        depth,
        columns,
        panels,
    });
}

struct Pack<'a> {
    right: Matrix<'a>,
    depth: usize,
    columns: usize,
    panels: &'a mut [f32],
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
            if column_stride == 1 {
                for (p, line) in panel.chunks_exact_mut(width).enumerate() {
                    let from = p * row_stride + column;
                    line[..filled].copy_from_slice(&values[from..from + filled]);
                    line[filled..].fill(0.0);
                }
            } else {
                for line in panel.chunks_exact_mut(width) {
                    line[filled..].fill(0.0);
                }
                // Sixteen values of a column at a time: one cache line read for sixteen lines written.
                let mut block = 0;
                while block < self.depth {
                    let rows = LANES.min(self.depth - block);
                    for c in 0..filled {
                        let from = (column + c) * column_stride + block * row_stride;
                        for q in 0..rows {
                            panel[(block + q) * width + c] = values[from + q * row_stride];
                        }
                    }
                    block += LANES;
                }
            }
            column += width;
        }
    }
}

/// Whether a product replaces what is in its output or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Replace,
    Add,
}

/// out[i * out_stride + j] (+)= sum over p of left[i, p] * right[p, j] for i < rows, j < columns; `panels` is the
/// packed right operand.
#[allow(clippy::too_many_arguments)]
pub fn multiply(
    rows: usize,
    depth: usize,
    columns: usize,
    left: Matrix,
    panels: &[f32],
    out: &mut [f32],
    out_stride: usize,
    write: Write,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(left.holds(rows, depth), "left operand too short");
    assert!(
        panels.len() >= packed_length(depth, columns),
        "panels too short"
    );
    assert!(
        (rows - 1) * out_stride + columns <= out.len(),
        "output too short"
    );
    vectorised(Multiply {
        rows,
        depth,
        columns,
        left,
        panels,
        out,
        out_stride,
        write,
    });
}

struct Multiply<'a> {
    rows: usize,
    depth: usize,
    columns: usize,
    left: Matrix<'a>,
    panels: &'a [f32],
    out: &'a mut [f32],
    out_stride: usize,
    write: Write,
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<const ROWS: usize>(mut self) {
        let mut column = 0;
        while column < self.columns {
            let (start, width) = panel(self.depth, self.columns, column);
            let target = Target {
                panel: self.panels[start..].as_ptr(),
                columns: width.min(self.columns - column),
                column,
            };
            if width == PANEL {
                panel_rows::<ROWS, 2>(&mut self, target);
            } else {
                panel_rows::<ROWS, 1>(&mut self, target);
            }
            column += width;
        }
    }
}

/// One panel and the output columns it stands for.
#[derive(Clone, Copy)]
struct Target {
    panel: *const f32,
    column: usize,
    columns: usize,
}

#[inline(always)]
fn panel_rows<const ROWS: usize, const VECTORS: usize>(product: &mut Multiply, target: Target) {
    let mut row = 0;
    while row + ROWS <= product.rows {
        tile::<ROWS, VECTORS>(product, target, row);
        row += ROWS;
    }
    if ROWS > 4 && row + 4 <= product.rows {
        tile::<4, VECTORS>(product, target, row);
        row += 4;
    }
    if ROWS > 2 && row + 2 <= product.rows {
        tile::<2, VECTORS>(product, target, row);
        row += 2;
    }
    if row < product.rows {
        tile::<1, VECTORS>(product, target, row);
    }
}

#[inline(always)]
fn tile<const ROWS: usize, const VECTORS: usize>(
    product: &mut Multiply,
    target: Target,
    row: usize,
) {
    let Matrix {
        values,
        row_stride,
        column_stride,
    } = product.left;
    let mut sums = [[[0f32; LANES]; VECTORS]; ROWS];
    // Safety: `multiply` checked that the left operand holds [rows, depth] and the panels [depth, columns padded].
    unsafe {
        let left = values.as_ptr().add(row * row_stride);
        for p in 0..product.depth {
            let line = target.panel.add(p * VECTORS * LANES);
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
                let before = if add { *place } else { 0.0 };
                *place = row[j / LANES][j % LANES] + before;
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
                pack(right, depth, columns, &mut panels);
                let stride = columns + 3;
                let mut out = vec![1.0; rows * stride];
                multiply(
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
        pack(Matrix::rows(&b, columns), depth, columns, &mut panels);
        let mut all = vec![0.0; rows * columns];
        multiply(
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
            multiply(
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
}
