//! The parameters of a model: one buffer, named ranges, and their file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::layout::{Initial, Layout};
use super::settings::Shape;
use crate::kernels::buffer::Buffer;
use crate::random::Random;

/// Token id of `<pad>` in XLM's vocabularies; its embedding starts at zero and lookups of it train nothing.
pub const PAD: u32 = 2;

/// The metadata key that holds the shape.
const SHAPE: &str = "xlt.shape";

/// A model's shape and f32 parameters.
#[derive(Debug, Clone)]
pub struct Model {
    shape: Shape,
    layout: Layout,
    values: Buffer,
}

impl Model {
    /// A fresh model. Each parameter has its own random stream, so that a change elsewhere leaves it as it is.
    pub fn initialise(shape: &Shape, seed: u64) -> Model {
        let mut model = Model::empty(shape);
        for entry in &model.layout.entries {
            let mut random = Random::new(seed, &format!("initialise {}", entry.name), 0);
            let values = &mut model.values[entry.range.clone()];
            match entry.initial {
                Initial::Zeros => values.fill(0.0),
                Initial::Ones => values.fill(1.0),
                Initial::Normal(deviation) => {
                    values
                        .iter_mut()
                        .for_each(|value| *value = (deviation * random.normal()) as f32);
                }
                Initial::Uniform(bound) => {
                    values
                        .iter_mut()
                        .for_each(|value| *value = (bound * (2.0 * random.uniform() - 1.0)) as f32);
                }
            }
        }
        let hidden = shape.settings.hidden;
        let pad = PAD as usize * hidden;
        for stack in model.layout.stacks() {
            if let Some(row) = model.values[stack.token.clone()].get_mut(pad..pad + hidden) {
                row.fill(0.0);
            }
        }
        model
    }

    fn empty(shape: &Shape) -> Model {
        let layout = Layout::new(shape);
        Model {
            shape: shape.clone(),
            values: Buffer::zeros(layout.length),
            layout,
        }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All parameters; those between the named ranges are zero.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub fn parameter(&self, name: &str) -> Option<&[f32]> {
        let entry = self
            .layout
            .entries
            .iter()
            .find(|entry| entry.name == name)?;
        Some(&self.values[entry.range.clone()])
    }

    pub fn parameter_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let entry = self
            .layout
            .entries
            .iter()
            .find(|entry| entry.name == name)?;
        Some(&mut self.values[entry.range.clone()])
    }

    /// Name, dimensions and values of every parameter, in the order of the layout.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layout.entries.iter().map(|entry| {
            (
                entry.name.as_str(),
                entry.dims.as_slice(),
                &self.values[entry.range.clone()],
            )
        })
    }

    /// Writes a safetensors file with the shape in its metadata. The same model gives the same bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([(SHAPE.to_owned(), serde_json::to_string(&self.shape)?)]);
        let views = self
            .parameters()
            .map(|(name, dims, values)| Ok((name, view(dims, values)?)))
            .collect::<Result<Vec<_>>>()?;
        write_file(path, &safetensors::serialize(views, Some(metadata))?)
            .with_context(|| format!("cannot write the model {}", path.display()))
    }

    /// Reads a file written by [`Model::save`].
    pub fn load(path: &Path) -> Result<Model> {
        let context = || format!("cannot read the model {}", path.display());
        let bytes = std::fs::read(path).with_context(context)?;
        Model::from_bytes(&bytes).with_context(context)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Model> {
        let (file, metadata) = open(bytes)?;
        let shape = metadata
            .get(SHAPE)
            .context("it holds no model's shape; use a model that this program wrote")?;
        let shape: Shape = serde_json::from_str(shape).context("its shape is not understood")?;
        check_shape(&shape)?;
        let stored: usize = file
            .iter()
            .map(|(_, tensor)| tensor.shape().iter().product::<usize>())
            .sum();
        ensure!(
            stored == shape.parameters(),
            "it holds {stored} values where its shape asks for {}; it is not a model or was changed",
            shape.parameters()
        );
        let mut model = Model::empty(&shape);
        for entry in &model.layout.entries {
            read_tensor(
                &file,
                &entry.name,
                &entry.dims,
                &mut model.values[entry.range.clone()],
            )?;
        }
        Ok(model)
    }
}

/// A shape read from a file must be sound before memory is asked for.
fn check_shape(shape: &Shape) -> Result<()> {
    if let Err(problems) = shape.settings.validate() {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bail!("its shape is impossible: {}", list.join(", "));
    }
    ensure!(
        (1..1 << 28).contains(&shape.vocabulary)
            && (1..1 << 20).contains(&shape.languages)
            && shape.settings.layers < 10_000,
        "its shape is impossible: vocabulary {}, languages {}, layers {}",
        shape.vocabulary,
        shape.languages,
        shape.settings.layers
    );
    Ok(())
}

/// A safetensors file's tensors and metadata; truncation and foreign formats are errors.
pub(crate) fn open(bytes: &[u8]) -> Result<(SafeTensors<'_>, HashMap<String, String>)> {
    let remedy = "it is truncated or no safetensors file; make it again";
    let (_, metadata) = SafeTensors::read_metadata(bytes).context(remedy)?;
    let file = SafeTensors::deserialize(bytes).context(remedy)?;
    Ok((file, metadata.metadata().clone().unwrap_or_default()))
}

/// Copies a tensor of the expected name and dimensions.
pub(crate) fn read_tensor(
    file: &SafeTensors,
    name: &str,
    dims: &[usize],
    values: &mut [f32],
) -> Result<()> {
    let tensor = file
        .tensor(name)
        .with_context(|| format!("`{name}` is missing"))?;
    ensure!(
        tensor.dtype() == Dtype::F32 && tensor.shape() == dims,
        "`{name}` is {:?} {:?} where F32 {dims:?} is needed",
        tensor.dtype(),
        tensor.shape()
    );
    for (value, bytes) in values.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
    Ok(())
}

pub(crate) fn view<'a>(dims: &[usize], values: &'a [f32]) -> Result<TensorView<'a>> {
    // Safety: any four bytes are plain data; the length in bytes is exact.
    let bytes =
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
    Ok(TensorView::new(Dtype::F32, dims.to_vec(), bytes)?)
}

/// Writes beside the target, then renames: a reader never sees half a file.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
