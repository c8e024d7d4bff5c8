//! Weights of the layers packed as right operands, once for all shards of a step.

use super::layout::{Layout, Linear};
use crate::kernels::Device;
use crate::kernels::buffer::{Buffer, Parts};
use crate::kernels::matmul::{Matrix, Precision, packed_length};

/// Which product the weights are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// outputs = inputs . weight^T
    Forward,
    /// input gradients = output gradients . weight
    Backward,
}

#[derive(Debug, Default)]
pub struct Weights {
    panels: Buffer,
    /// Where the panels of each linear layer start; the last entry is the end. Those of forward products have a right operand
    /// for each part of the outputs.
    starts: Vec<usize>,
}

impl Weights {
    /// Packs anew, in the memory of `self`.
    pub fn packed(
        mut self,
        layout: &Layout,
        values: &[f32],
        orientation: Orientation,
        precision: Precision,
        device: &Device,
    ) -> Weights {
        let linears = &layout.linears;
        self.starts.clear();
        let mut end = 0;
        for linear in linears {
            self.starts.push(end);
            end += match orientation {
                Orientation::Forward => linear.parts * part_length(linear),
                Orientation::Backward => packed_length(linear.outputs, linear.inputs),
            }
            .next_multiple_of(16);
        }
        self.starts.push(end);
        self.panels.resize(end);
        let starts = &self.starts;
        let parts = Parts::new(&mut self.panels);
        device.pool().each(linears.len(), |index| {
            let linear = &linears[index];
            let weight = &values[linear.weight.clone()];
            // Safety: the products' ranges do not overlap, and each is packed by one task.
            let panels = unsafe { parts.range(starts[index]..starts[index + 1]) };
            match orientation {
                Orientation::Forward => {
                    let length = part_length(linear);
                    for (part, panels) in panels.chunks_exact_mut(length).enumerate() {
                        let outputs = linear.outputs_of(&(part..part + 1));
                        precision.pack(
                            Matrix::columns(
                                &weight[outputs.start * linear.inputs..],
                                linear.inputs,
                            ),
                            linear.inputs,
                            outputs.len(),
                            panels,
                        );
                    }
                }
                Orientation::Backward => {
                    precision.pack(
                        Matrix::rows(weight, linear.inputs),
                        linear.outputs,
                        linear.inputs,
                        panels,
                    );
                }
            }
        });
        self
    }

    /// The right operand of one part, or of all outputs where weights are packed for the backward: its only one.
    pub fn panels(&self, linear: &Linear, part: usize) -> &[f32] {
        let all = &self.panels[self.starts[linear.number]..self.starts[linear.number + 1]];
        &all[part * part_length(linear)..]
    }
}

/// Length of the panels of one part's forward product.
fn part_length(linear: &Linear) -> usize {
    packed_length(linear.inputs, linear.outputs / linear.parts)
}
