//! Where each named parameter lies in the one buffer that holds them all.
//!
//! The layers are a list of ranges, so that layers can be shared, repeated or frozen by what is in the list.

use std::ops::Range;

use super::settings::Shape;

/// A named parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    pub dims: Vec<usize>,
    pub range: Range<usize>,
    pub initial: Initial,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    Zeros,
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform between plus and minus this bound.
    Uniform(f64),
}

/// y = x . weight^T + bias with weight [outputs, inputs].
#[derive(Debug, Clone)]
pub struct Linear {
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
}

#[derive(Debug, Clone)]
pub struct Norm {
    pub scale: Range<usize>,
    pub shift: Range<usize>,
}

/// Self-attention and feed-forward, each followed by its normalisation.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Query, key and value below each other: [3 hidden, hidden].
    pub projection: Linear,
    pub attention_output: Linear,
    pub attention_norm: Norm,
    pub inner: Linear,
    pub outer: Linear,
    pub feed_forward_norm: Norm,
    /// The ranges that hold the first three and the last three of the above.
    pub attention_block: Range<usize>,
    pub feed_forward_block: Range<usize>,
}

#[derive(Debug, Clone)]
pub struct Layout {
    pub entries: Vec<Entry>,
    /// [vocabulary, hidden], also the output layer's weight.
    pub token: Range<usize>,
    pub output_bias: Range<usize>,
    /// The range that holds both.
    pub output_block: Range<usize>,
    pub position: Range<usize>,
    pub language: Option<Range<usize>>,
    pub embedding_norm: Norm,
    pub embedding_norm_block: Range<usize>,
    pub layers: Vec<Layer>,
    /// Length of the buffer: every parameter starts on a cache line.
    pub length: usize,
}

impl Layout {
    /// The encoder of `shape`. Initial values as XLM: embeddings N(0, 1 / hidden), linear layers as PyTorch's
    /// default (uniform within 1 / sqrt(inputs), weight and bias), normalisations one and zero.
    pub fn new(shape: &Shape) -> Layout {
        let s = &shape.settings;
        let mut builder = Builder::default();
        let embedding = Initial::Normal(1.0 / (s.hidden as f64).sqrt());
        let token = builder.add("embeddings.token", &[shape.vocabulary, s.hidden], embedding);
        let bound = Initial::Uniform(1.0 / (s.hidden as f64).sqrt());
        let output_bias = builder.add("output.bias", &[shape.vocabulary], bound);
        let output_block = token.start..builder.length;
        let position = builder.add("embeddings.position", &[s.positions, s.hidden], embedding);
        let language = s.language_embeddings.then(|| {
            builder.add(
                "embeddings.language",
                &[shape.languages, s.hidden],
                embedding,
            )
        });
        let start = builder.length;
        let embedding_norm = builder.norm("embeddings.norm", s.hidden);
        let embedding_norm_block = start..builder.length;
        let layers = (0..s.layers)
            .map(|layer| {
                let name = |part: &str| format!("layers.{layer}.{part}");
                let start = builder.length;
                let projection =
                    builder.linear(&name("attention.query_key_value"), s.hidden, 3 * s.hidden);
                let attention_output =
                    builder.linear(&name("attention.output"), s.hidden, s.hidden);
                let attention_norm = builder.norm(&name("attention.norm"), s.hidden);
                let middle = builder.length;
                let inner = builder.linear(&name("feed_forward.inner"), s.hidden, s.feed_forward);
                let outer = builder.linear(&name("feed_forward.outer"), s.feed_forward, s.hidden);
                let feed_forward_norm = builder.norm(&name("feed_forward.norm"), s.hidden);
                Layer {
                    projection,
                    attention_output,
                    attention_norm,
                    inner,
                    outer,
                    feed_forward_norm,
                    attention_block: start..middle,
                    feed_forward_block: middle..builder.length,
                }
            })
            .collect();
        Layout {
            entries: builder.entries,
            token,
            output_bias,
            output_block,
            position,
            language,
            embedding_norm,
            embedding_norm_block,
            layers,
            length: builder.length,
        }
    }
}

#[derive(Default)]
struct Builder {
    entries: Vec<Entry>,
    length: usize,
}

impl Builder {
    fn add(&mut self, name: &str, dims: &[usize], initial: Initial) -> Range<usize> {
        let size: usize = dims.iter().product();
        let range = self.length..self.length + size;
        self.length += size.next_multiple_of(16);
        self.entries.push(Entry {
            name: name.to_owned(),
            dims: dims.to_vec(),
            range: range.clone(),
            initial,
        });
        range
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let bound = Initial::Uniform(1.0 / (inputs as f64).sqrt());
        Linear {
            weight: self.add(&format!("{name}.weight"), &[outputs, inputs], bound),
            bias: self.add(&format!("{name}.bias"), &[outputs], bound),
            inputs,
            outputs,
        }
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        Norm {
            scale: self.add(&format!("{name}.scale"), &[width], Initial::Ones),
            shift: self.add(&format!("{name}.shift"), &[width], Initial::Zeros),
        }
    }
}
