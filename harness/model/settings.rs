//! The size of a model, what it costs, and which sizes make sense.

use crate::problem::Problem;

use super::layout::Layout;
use crate::kernels::Precision;

/// Section `model` of a study: a post-norm transformer encoder as in XLM.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Transformer layers.
    pub layers: usize,
    /// Width of the hidden states; a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the feed-forward blocks; the papers use 4 times `hidden`.
    pub feed_forward: usize,
    /// Longest sequence, in tokens (learned positions). XLM: 512.
    #[serde(default = "default_positions")]
    pub positions: usize,
    /// Dropout rate of embeddings and sublayer outputs, 0 to below 1. XLM: 0.1.
    #[serde(default = "default_dropout")]
    pub dropout: f32,
    /// Dropout rate of attention probabilities, 0 to below 1. XLM: 0.1.
    #[serde(default = "default_dropout")]
    pub attention_dropout: f32,
    /// Whether a learned embedding of the language is added to every token. XLM-15: yes; XLM-17, XLM-R: no.
    pub language_embeddings: bool,
}

fn default_positions() -> usize {
    512
}

fn default_dropout() -> f32 {
    0.1
}

/// What the driver, the kernels and the library of products take of a card before anything is computed: measured on an H100.
pub const CARD_BASE: u64 = 590_000_000;

/// Values of a chunk of logits that a card aims at.
pub(super) const LOGITS: usize = 1 << 26;

/// Largest value of any size: products of two stay far from overflow, and no model has more.
const LARGEST: usize = 1 << 24;

impl ModelSettings {
    /// Every problem at once; none means that a model of these settings can be built.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("positions", self.positions),
        ];
        for (field, value) in sizes {
            if !(1..=LARGEST).contains(&value) {
                problems.push(Problem {
                    field: field.to_owned(),
                    what: format!("is {value}"),
                    remedy: format!("use a number from 1 to {LARGEST}"),
                });
            }
        }
        if self.heads > 0 && !self.hidden.is_multiple_of(self.heads) {
            problems.push(Problem {
                field: "hidden".to_owned(),
                what: format!(
                    "is {}, which {} heads do not divide",
                    self.hidden, self.heads
                ),
                remedy: format!("use a multiple of {}", self.heads),
            });
        }
        for (field, value) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                problems.push(Problem {
                    field: field.to_owned(),
                    what: format!("is {value}"),
                    remedy: "use a rate from 0 to below 1".to_owned(),
                });
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

/// Settings together with what the data decides.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub settings: ModelSettings,
    /// Tokens in the vocabulary, special ones included.
    pub vocabulary: usize,
    /// Languages that a token can be in.
    pub languages: usize,
    /// Whether a decoder translates what the encoder has read: as many layers of the same sizes, with parameters of its
    /// own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decoder: bool,
}

impl Shape {
    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        Layout::new(self)
            .entries
            .iter()
            .map(|entry| entry.dims.iter().product::<usize>())
            .sum()
    }

    /// Floating-point operations of a training step per token of a sequence of `length` (with a decoder, of a source or a target):
    /// two per weight and pass, with one forward and two backward passes. The last layer computes the share `computed` of its
    /// rows (0 to 1; with a decoder all), and the share `predicted` of the tokens passes through the output layer.
    pub fn training_flops_per_token(&self, length: usize, computed: f64, predicted: f64) -> f64 {
        let of_layers = self.layer_products(length as f64, computed);
        // Of a decoder's model the layers are those of both sides, for a token of each.
        let sides = if self.decoder { 2.0 } else { 1.0 };
        6.0 * (of_layers / sides + predicted * (self.vocabulary * self.settings.hidden) as f64)
    }

    /// Multiplications of the layers' products per token of a sequence of `length`, forward, where the last layer computes the share
    /// `computed` of its rows. With a decoder, whose last layer computes all, of a source's and a target's token together.
    pub fn layer_products(&self, length: f64, computed: f64) -> f64 {
        let s = &self.settings;
        let (layers, hidden, wide) = (s.layers as f64, s.hidden as f64, s.feed_forward as f64);
        // Keys and values are those of all tokens.
        let of_token = 2.0 * hidden * hidden;
        let of_row = 2.0 * hidden * (hidden + wide + length);
        match self.decoder {
            true => {
                let source_attention = 4.0 * hidden * hidden + 2.0 * length * hidden;
                layers * (2.0 * (of_token + of_row) + source_attention)
            }
            false => layers * of_token + (layers - 1.0 + computed) * of_row,
        }
    }

    /// Bytes that a training step over `tokens` tokens of one shard holds: parameters, gradient, two moments,
    /// packed weights, and the activations of that shard. An estimate; multiply the activations by the threads.
    pub fn training_bytes(&self, tokens: usize) -> u64 {
        let s = &self.settings;
        let mut layer_weights =
            s.layers * (4 * s.hidden * s.hidden + 2 * s.hidden * s.feed_forward);
        if self.decoder {
            layer_weights = 2 * layer_weights + s.layers * 4 * s.hidden * s.hidden;
        }
        let per_token = (s.layers + 1) * (8 * s.hidden + 2 * s.feed_forward)
            + s.layers * s.heads * s.positions.min(tokens);
        4 * (4 * self.parameters() + 2 * layer_weights + tokens * per_token) as u64
    }

    /// Bytes of a card's memory that training in steps of `tokens` tokens takes (with a decoder, of sources and targets together),
    /// of which the share `predicted` is predicted. An estimate, which a test compares with what is allocated.
    pub fn card_bytes(&self, tokens: usize, predicted: f64, precision: Precision) -> u64 {
        let s = &self.settings;
        let element = match precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        // Values, gradient and two moments in 32 bits, and what products read.
        let of_parameters = match precision {
            Precision::F32 => 16,
            Precision::Bf16 => 18,
        };
        // What is kept of each layer; of a decoder's also its attention over the source, here shared by both sides.
        let mut kept = 8 * s.hidden + 2 * s.feed_forward;
        if self.decoder {
            kept += 3 * s.hidden;
        }
        let passing = 8 * s.hidden + s.feed_forward.max(3 * s.hidden);
        let per_token = element * (s.layers * kept + passing) + 4 * s.layers * (s.heads + 2);
        let targets = (tokens as f64 * predicted) as usize;
        let logits = (targets * self.vocabulary).min(LOGITS);
        let sums = 4 * self.vocabulary.max(4096) * 64;
        let bytes = of_parameters * self.parameters()
            + tokens * per_token
            + logits * (element + if element == 2 { 4 } else { 0 })
            + targets * 2 * element * s.hidden
            + sums;
        // Buffers are made a sixteenth longer than what is asked for first.
        CARD_BASE + (bytes + bytes / 16) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> ModelSettings {
        ModelSettings {
            layers: 2,
            hidden: 8,
            heads: 2,
            feed_forward: 16,
            positions: 10,
            dropout: 0.1,
            attention_dropout: 0.1,
            language_embeddings: true,
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_field() {
        assert!(tiny().validate().is_ok());
        let broken = ModelSettings {
            heads: 3,
            layers: 0,
            dropout: f32::NAN,
            attention_dropout: 1.0,
            ..tiny()
        };
        let problems = broken.validate().unwrap_err();
        let fields: Vec<_> = problems
            .iter()
            .map(|problem| problem.field.as_str())
            .collect();
        assert_eq!(fields, ["layers", "hidden", "dropout", "attention_dropout"]);
        assert!(ModelSettings { heads: 0, ..tiny() }.validate().is_err());
    }

    #[test]
    fn parameters_are_counted() {
        let shape = Shape {
            settings: tiny(),
            vocabulary: 20,
            languages: 3,
            decoder: false,
        };
        let embeddings = 20 * 8 + 10 * 8 + 3 * 8 + 2 * 8 + 20;
        let layer = 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 4 * 8;
        assert_eq!(shape.parameters(), embeddings + 2 * layer);
        let source_attention = 4 * (8 * 8 + 8) + 2 * 8;
        let both = Shape {
            decoder: true,
            ..shape
        };
        // The encoder beside a decoder has no output bias.
        assert_eq!(
            both.parameters(),
            2 * (embeddings + 2 * layer) - 20 + 2 * source_attention
        );
    }
}
