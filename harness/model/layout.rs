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
    /// Outputs come in so many equal parts, each of which can be computed alone.
    pub parts: usize,
    /// Its place among [`Layout::linears`].
    pub number: usize,
}

impl Linear {
    /// The outputs of some parts.
    pub fn outputs_of(&self, parts: &Range<usize>) -> Range<usize> {
        let width = self.outputs / self.parts;
        parts.start * width..parts.end * width
    }

    /// The weights of some outputs, which are rows.
    pub fn weight_of(&self, outputs: &Range<usize>) -> Range<usize> {
        let row = |output: usize| self.weight.start + output * self.inputs;
        row(outputs.start)..row(outputs.end)
    }
}

#[derive(Debug, Clone)]
pub struct Norm {
    pub scale: Range<usize>,
    pub shift: Range<usize>,
}

/// Parameters behind each other whose gradients a shard adds at once.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its place among [`Layout::blocks`].
    pub number: usize,
    pub range: Range<usize>,
}

/// Self-attention, in a decoder attention over the source, and feed-forward, each followed by its normalisation.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Query, key and value, its three parts, below each other: [3 hidden, hidden].
    pub projection: Linear,
    pub attention_output: Linear,
    pub attention_norm: Norm,
    /// The three above.
    pub attention_block: Block,
    pub source_attention: Option<SourceAttention>,
    pub inner: Linear,
    pub outer: Linear,
    pub feed_forward_norm: Norm,
    /// The three above.
    pub feed_forward_block: Block,
}

/// Attention of a decoder's states over the encoder's.
#[derive(Debug, Clone)]
pub struct SourceAttention {
    pub query: Linear,
    /// Key and value below each other: [2 hidden, hidden].
    pub key_value: Linear,
    pub output: Linear,
    pub norm: Norm,
    pub block: Block,
}

/// The output layer: its weight is the token table.
#[derive(Debug, Clone)]
pub struct OutputLayer {
    pub bias: Range<usize>,
    /// Token table and bias.
    pub block: Block,
}

/// Embeddings, and layers that run one after the other.
#[derive(Debug, Clone)]
pub struct Stack {
    /// [vocabulary, hidden]
    pub token: Range<usize>,
    /// An encoder whose states a decoder reads predicts nothing itself.
    pub output: Option<OutputLayer>,
    pub position: Range<usize>,
    pub language: Option<Range<usize>>,
    pub embedding_norm: Norm,
    pub embedding_block: Block,
    pub layers: Vec<Layer>,
    /// Number of its first place of dropout.
    pub first_site: usize,
}

#[derive(Debug, Clone)]
pub struct Layout {
    pub entries: Vec<Entry>,
    pub encoder: Stack,
    pub decoder: Option<Stack>,
    /// Ascending; tables of lookups that are no output layer's weight lie in none.
    pub blocks: Vec<Range<usize>>,
    /// Of all layers of all stacks.
    pub linears: Vec<Linear>,
    /// Length of the buffer: every parameter starts on a cache line.
    pub length: usize,
}

impl Layout {
    /// The model of `shape`. Initial values as XLM: embeddings N(0, 1 / hidden), linear layers as PyTorch's
    /// default (uniform within 1 / sqrt(inputs), weight and bias), normalisations one and zero.
    pub fn new(shape: &Shape) -> Layout {
        let mut builder = Builder::default();
        let encoder = builder.stack(shape, Side::Encoder);
        let decoder = shape.decoder.then(|| builder.stack(shape, Side::Decoder));
        Layout {
            entries: builder.entries,
            encoder,
            decoder,
            blocks: builder.blocks,
            linears: builder.linears,
            length: builder.length,
        }
    }

    /// The stack whose states predict tokens: the decoder where there is one.
    pub fn predicting(&self) -> &Stack {
        self.decoder.as_ref().unwrap_or(&self.encoder)
    }

    /// All stacks, the encoder first.
    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        std::iter::once(&self.encoder).chain(&self.decoder)
    }
}

/// Which stack of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Encoder,
    Decoder,
}

impl Side {
    /// What the names of its parameters begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Side::Encoder => "",
            Side::Decoder => "decoder.",
        }
    }
}

#[derive(Default)]
struct Builder {
    entries: Vec<Entry>,
    blocks: Vec<Range<usize>>,
    linears: Vec<Linear>,
    length: usize,
}

impl Builder {
    fn stack(&mut self, shape: &Shape, side: Side) -> Stack {
        let s = &shape.settings;
        let prefix = side.prefix();
        let name = |part: &str| format!("{prefix}{part}");
        let embedding = Initial::Normal(1.0 / (s.hidden as f64).sqrt());
        let start = self.length;
        let token = self.add(
            &name("embeddings.token"),
            &[shape.vocabulary, s.hidden],
            embedding,
        );
        let predicts = side == Side::Decoder || !shape.decoder;
        let output = predicts.then(|| {
            let bound = Initial::Uniform(1.0 / (s.hidden as f64).sqrt());
            let bias = self.add(&name("output.bias"), &[shape.vocabulary], bound);
            OutputLayer {
                bias,
                block: self.block(start),
            }
        });
        let position = self.add(
            &name("embeddings.position"),
            &[s.positions, s.hidden],
            embedding,
        );
        let language = s.language_embeddings.then(|| {
            self.add(
                &name("embeddings.language"),
                &[shape.languages, s.hidden],
                embedding,
            )
        });
        let start = self.length;
        let embedding_norm = self.norm(&name("embeddings.norm"), s.hidden);
        let embedding_block = self.block(start);
        let layers = (0..s.layers)
            .map(|layer| self.layer(shape, side, &name(&format!("layers.{layer}"))))
            .collect();
        Stack {
            token,
            output,
            position,
            language,
            embedding_norm,
            embedding_block,
            layers,
            first_site: match side {
                Side::Encoder => 0,
                Side::Decoder => super::trunk::sites(s.layers, Side::Encoder),
            },
        }
    }

    fn layer(&mut self, shape: &Shape, side: Side, name: &str) -> Layer {
        let s = &shape.settings;
        let name = |part: &str| format!("{name}.{part}");
        let start = self.length;
        let projection = self.linear(&name("attention.query_key_value"), s.hidden, s.hidden, 3);
        let attention_output = self.linear(&name("attention.output"), s.hidden, s.hidden, 1);
        let attention_norm = self.norm(&name("attention.norm"), s.hidden);
        let attention_block = self.block(start);
        let source_attention = (side == Side::Decoder).then(|| {
            let start = self.length;
            SourceAttention {
                query: self.linear(&name("source_attention.query"), s.hidden, s.hidden, 1),
                key_value: self.linear(&name("source_attention.key_value"), s.hidden, s.hidden, 2),
                output: self.linear(&name("source_attention.output"), s.hidden, s.hidden, 1),
                norm: self.norm(&name("source_attention.norm"), s.hidden),
                block: self.block(start),
            }
        });
        let start = self.length;
        let inner = self.linear(&name("feed_forward.inner"), s.hidden, s.feed_forward, 1);
        let outer = self.linear(&name("feed_forward.outer"), s.feed_forward, s.hidden, 1);
        let feed_forward_norm = self.norm(&name("feed_forward.norm"), s.hidden);
        Layer {
            projection,
            attention_output,
            attention_norm,
            attention_block,
            source_attention,
            inner,
            outer,
            feed_forward_norm,
            feed_forward_block: self.block(start),
        }
    }

    /// What was added since the buffer had the length `start`.
    fn block(&mut self, start: usize) -> Block {
        let range = start..self.length;
        self.blocks.push(range.clone());
        Block {
            number: self.blocks.len() - 1,
            range,
        }
    }

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

    /// `width` outputs in each of the parts.
    fn linear(&mut self, name: &str, inputs: usize, width: usize, parts: usize) -> Linear {
        let outputs = parts * width;
        let bound = Initial::Uniform(1.0 / (inputs as f64).sqrt());
        let linear = Linear {
            weight: self.add(&format!("{name}.weight"), &[outputs, inputs], bound),
            bias: self.add(&format!("{name}.bias"), &[outputs], bound),
            inputs,
            outputs,
            parts,
            number: self.linears.len(),
        };
        self.linears.push(linear.clone());
        linear
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        Norm {
            scale: self.add(&format!("{name}.scale"), &[width], Initial::Ones),
            shift: self.add(&format!("{name}.shift"), &[width], Initial::Zeros),
        }
    }
}
