//! Classification of sentence pairs on the encoder's pooled hidden states (XNLI).
//!
//! XLM (Lample & Conneau 2019; glue.py and xnli.py of its code): the input is `</s> premise </s> hypothesis </s>` with one
//! language for all of it and positions that run on; the classifier is dropout and one linear layer; the loss is the
//! cross-entropy, averaged over the pairs of a batch; all parameters of the encoder are tuned.

use anyhow::{Context, Result};
use candle_core::{D, Device as Place, Tensor};
use candle_nn::ops::log_softmax;

use crate::data::nli::{Label, NliExample};
use crate::data::tokenizer::{END_OF_SENTENCE, Tokenizer};
use crate::model::{Batch, Direction, Encoder};
use crate::random::Random;
use crate::tasks::pooling::{Pooling, pool};
use crate::training::Trainer;

/// Names of the classifier's parameters in a trainer.
const WEIGHT: &str = "classifier.weight";
const BIAS: &str = "classifier.bias";
/// Sentence pairs predicted at once; a matter of memory only.
const PREDICTION_PAIRS: usize = 64;

/// A sentence pair as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPair {
    /// `</s> premise </s> hypothesis </s>`.
    pub tokens: Vec<u32>,
    /// Id of the language that the whole input is said to be in.
    pub language: u32,
    pub label: Label,
    pub premise_id: u32,
    pub item: u32,
    /// Whether a sentence was cut.
    pub truncated: bool,
}

/// Lays a pair out as XLM does; sentences longer than `maximum_length` tokens are cut.
pub fn encode_pair(
    premise: &[u32],
    hypothesis: &[u32],
    example: &NliExample,
    language: u32,
    maximum_length: usize,
) -> EncodedPair {
    let cut = |sentence: &[u32]| sentence.len().min(maximum_length);
    let (first, second) = (cut(premise), cut(hypothesis));
    let mut tokens = Vec::with_capacity(first + second + 3);
    tokens.push(END_OF_SENTENCE);
    tokens.extend_from_slice(&premise[..first]);
    tokens.push(END_OF_SENTENCE);
    tokens.extend_from_slice(&hypothesis[..second]);
    tokens.push(END_OF_SENTENCE);
    EncodedPair {
        tokens,
        language,
        label: example.label,
        premise_id: example.premise_id,
        item: example.item,
        truncated: first < premise.len() || second < hypothesis.len(),
    }
}

/// Encodes examples whose premise and hypothesis may be in different languages: `languages` are (of the premise's text, of
/// the hypothesis's text, the language the model is told).
pub fn encode_examples(
    examples: &[NliExample],
    tokenizer: &Tokenizer,
    languages: (&str, &str, &str),
    maximum_length: usize,
) -> Result<Vec<EncodedPair>> {
    let told = tokenizer.language_id(languages.2)?;
    let (mut of_premises, mut of_hypotheses) = (
        tokenizer.encoder(languages.0)?,
        tokenizer.encoder(languages.1)?,
    );
    Ok(examples
        .iter()
        .map(|example| {
            let (mut premise, mut hypothesis) = (Vec::new(), Vec::new());
            of_premises.encode(&example.premise, &mut premise);
            of_hypotheses.encode(&example.hypothesis, &mut hypothesis);
            encode_pair(&premise, &hypothesis, example, told, maximum_length)
        })
        .collect())
}

/// Packs pairs into one batch.
pub fn pack<'a>(pairs: impl Iterator<Item = &'a EncodedPair>) -> Batch {
    let mut batch = Batch::new();
    for pair in pairs {
        batch.push(&pair.tokens, pair.language);
    }
    batch
}

/// The classifier: dropout and one linear layer from `hidden` to the three labels.
pub struct Classifier {
    /// [classes, hidden]
    pub weight: Tensor,
    /// [classes]
    pub bias: Tensor,
    pub pooling: Pooling,
    /// Dropout on the pooled vector in training (XLM: 0).
    pub dropout: f32,
}

impl Classifier {
    /// PyTorch's default for a linear layer: uniform in +-1/sqrt(hidden), drawn from `seed`.
    pub fn initialise(hidden: usize, pooling: Pooling, dropout: f32, seed: u64) -> Result<Self> {
        let classes = Label::ALL.len();
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut random = Random::new(seed, "classifier", 0);
        let mut draw = |count: usize| -> Vec<f32> {
            (0..count)
                .map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32)
                .collect()
        };
        let weight = draw(classes * hidden);
        let bias = draw(classes);
        Self::from_values(weight, bias, pooling, dropout)
    }

    /// From stored values: weight [classes, hidden] row by row, bias [classes].
    pub fn from_values(
        weight: Vec<f32>,
        bias: Vec<f32>,
        pooling: Pooling,
        dropout: f32,
    ) -> Result<Self> {
        let classes = Label::ALL.len();
        let hidden = weight.len() / classes;
        let weight = Tensor::from_vec(weight, (classes, hidden), &Place::Cpu)
            .context("the classifier's weight has the wrong size")?;
        let bias = Tensor::from_vec(bias, classes, &Place::Cpu)
            .context("the classifier's bias has the wrong size")?;
        Ok(Self {
            weight,
            bias,
            pooling,
            dropout,
        })
    }

    /// Gives a trainer the classifier's parameters to train.
    pub fn add_to(&self, trainer: &mut Trainer, learning_rate: f64) -> Result<()> {
        for (name, values) in [(WEIGHT, &self.weight), (BIAS, &self.bias)] {
            let initial = values.flatten_all()?.to_vec1()?;
            trainer.add_head_parameter(name, values.dims(), initial, learning_rate)?;
        }
        Ok(())
    }

    /// The classifier as a trainer has it now.
    pub fn of(trainer: &Trainer, pooling: Pooling, dropout: f32) -> Result<Self> {
        Ok(Self {
            weight: trainer.head_parameter(WEIGHT)?,
            bias: trainer.head_parameter(BIAS)?,
            pooling,
            dropout,
        })
    }

    /// Scores [sequences, classes] of the labels in the order of [`Label::ALL`], of the states at [`Pooling::tap`]. `training` carries (seed, update) for dropout.
    pub fn scores(
        &self,
        hidden: &Tensor,
        batch: &Batch,
        training: Option<(u64, u64)>,
    ) -> Result<Tensor> {
        let mut pooled = pool(hidden, batch, self.pooling)?;
        if let (Some((seed, update)), true) = (training, self.dropout > 0.0) {
            let mut random = Random::new(seed, "classifier dropout", update);
            let keep = 1.0 - f64::from(self.dropout);
            let mask: Vec<f32> = (0..pooled.elem_count())
                .map(|_| {
                    if random.uniform() < keep {
                        (1.0 / keep) as f32
                    } else {
                        0.0
                    }
                })
                .collect();
            pooled = (&pooled * Tensor::from_vec(mask, pooled.shape(), pooled.device())?)?;
        }
        Ok(pooled
            .matmul(&self.weight.t()?)?
            .broadcast_add(&self.bias)?)
    }

    /// Mean cross-entropy in nats of `labels` (class indices) under `scores` [sequences, classes].
    pub fn loss(scores: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let labels = Tensor::new(labels, scores.device())?.unsqueeze(1)?;
        Ok(log_softmax(scores, D::Minus1)?
            .gather(&labels, 1)?
            .mean_all()?
            .neg()?)
    }
}

/// The class with the largest score in each row; the first among equals.
pub fn best_classes(scores: &Tensor) -> Result<Vec<u8>> {
    let rows = scores.to_vec2::<f32>()?;
    Ok(rows
        .iter()
        .map(|row| {
            let mut best = 0;
            for (class, score) in row.iter().enumerate() {
                if *score > row[best] {
                    best = class;
                }
            }
            best as u8
        })
        .collect())
}

/// One update on `chosen`; `stream` is (seed, update) of the classifier's dropout. Returns the mean loss in nats per pair.
pub fn train_step(
    trainer: &mut Trainer,
    chosen: &[&EncodedPair],
    pooling: Pooling,
    dropout: f32,
    stream: (u64, u64),
) -> Result<f64> {
    let batch = pack(chosen.iter().copied());
    let labels: Vec<u32> = chosen
        .iter()
        .map(|pair| pair.label.index() as u32)
        .collect();
    let tap = pooling.tap();
    let pass = trainer.forward(&batch, Direction::Bidirectional, &[tap])?;
    let hidden = pass.tap(tap)?;
    let classifier = Classifier::of(trainer, pooling, dropout)?;
    let scores = classifier.scores(&hidden, &batch, Some(stream))?;
    let loss = trainer.backward_loss(vec![pass], &Classifier::loss(&scores, &labels)?)?;
    trainer.apply(1.0)?;
    Ok(loss)
}

/// Classes of `pairs`, in their order. Packing makes the result independent of which are predicted together.
pub fn predict(
    encoder: &Encoder,
    classifier: &Classifier,
    pairs: &[EncodedPair],
) -> Result<Vec<u8>> {
    let mut predicted = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(PREDICTION_PAIRS) {
        let batch = pack(chunk.iter());
        let hidden = encoder.predict(&batch, Direction::Bidirectional, classifier.pooling.tap())?;
        predicted.extend(best_classes(&classifier.scores(&hidden, &batch, None)?)?);
    }
    Ok(predicted)
}
