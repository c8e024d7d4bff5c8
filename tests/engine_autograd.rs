//! The trunk's hand-written backward against the same model in candle's own operations and autograd (64-bit): losses that mix
//! taps, passes, micro-batches, tied and frozen parameters.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device as Place, Tensor, Var};
use xlt::kernels::Device;
use xlt::model::{Batch, Direction, LanguageModelBatch, Model, Shape, Tap, Targets};
use xlt::training::{AdamSettings, Trainer};

use crate::engine::{adam, all_values, gradients, random_batch, tiny, trainer};

/// Dropout off, so that both sides compute the same function.
fn shape() -> Shape {
    tiny(0.0)
}

/// A model's parameters as 64-bit candle variables.
struct Reference {
    shape: Shape,
    variables: BTreeMap<String, Var>,
}

impl Reference {
    fn of(model: &Model) -> Self {
        let variables = model.parameters().map(|(name, dims, values)| {
            let tensor = Tensor::from_slice(values, dims, &Place::Cpu)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap();
            (name.to_owned(), Var::from_tensor(&tensor).unwrap())
        });
        Self {
            shape: model.shape().clone(),
            variables: variables.collect(),
        }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.variables[name].as_tensor()
    }

    fn linear(&self, input: &Tensor, name: &str) -> Tensor {
        input
            .matmul(&self.get(&format!("{name}.weight")).t().unwrap())
            .unwrap()
            .broadcast_add(self.get(&format!("{name}.bias")))
            .unwrap()
    }

    fn normalise(&self, input: &Tensor, name: &str) -> Tensor {
        let centred = input
            .broadcast_sub(&input.mean_keepdim(D::Minus1).unwrap())
            .unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let deviation = (variance + 1e-12).unwrap().sqrt().unwrap();
        centred
            .broadcast_div(&deviation)
            .unwrap()
            .broadcast_mul(self.get(&format!("{name}.scale")))
            .unwrap()
            .broadcast_add(self.get(&format!("{name}.shift")))
            .unwrap()
    }

    fn lookup(&self, name: &str, indices: &[u32]) -> Tensor {
        let indices = Tensor::new(indices, &Place::Cpu).unwrap();
        self.get(name).index_select(&indices, 0).unwrap()
    }

    /// States after the embeddings and after each layer, each [tokens, hidden].
    fn states(&self, batch: &Batch, direction: Direction) -> Vec<Tensor> {
        let layers = self.shape.settings.layers;
        let mut of_depth = vec![Vec::new(); layers + 1];
        for bounds in batch.offsets.windows(2) {
            let rows = bounds[0] as usize..bounds[1] as usize;
            let sum = (self.lookup("embeddings.token", &batch.tokens[rows.clone()])
                + self.lookup("embeddings.position", &batch.positions[rows.clone()]))
            .unwrap();
            let sum = (sum + self.lookup("embeddings.language", &batch.languages[rows])).unwrap();
            let mut x = self.normalise(&sum, "embeddings.norm");
            of_depth[0].push(x.clone());
            for layer in 0..layers {
                x = self.layer(&x, layer, direction);
                of_depth[layer + 1].push(x.clone());
            }
        }
        of_depth
            .into_iter()
            .map(|parts| Tensor::cat(&parts, 0).unwrap())
            .collect()
    }

    fn layer(&self, x: &Tensor, layer: usize, direction: Direction) -> Tensor {
        let (hidden, heads) = (self.shape.settings.hidden, self.shape.settings.heads);
        let (length, width) = (x.dim(0).unwrap(), hidden / heads);
        let name = |part: &str| format!("layers.{layer}.{part}");
        let projected = self.linear(x, &name("attention.query_key_value"));
        let hidden_from: Vec<f64> = (0..length * length)
            .map(|index| {
                let hides = direction == Direction::Causal && index % length > index / length;
                if hides { f64::NEG_INFINITY } else { 0.0 }
            })
            .collect();
        let mask = Tensor::from_vec(hidden_from, (length, length), &Place::Cpu).unwrap();
        let context: Vec<Tensor> = (0..heads)
            .map(|head| {
                let part = |index: usize| {
                    projected
                        .narrow(1, index * hidden + head * width, width)
                        .unwrap()
                        .contiguous()
                        .unwrap()
                };
                let scores = part(0).matmul(&part(1).t().unwrap()).unwrap();
                let scores = ((scores / (width as f64).sqrt()).unwrap() + &mask).unwrap();
                let powers = scores
                    .broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap().detach())
                    .unwrap()
                    .exp()
                    .unwrap();
                let weights = powers
                    .broadcast_div(&powers.sum_keepdim(D::Minus1).unwrap())
                    .unwrap();
                weights.matmul(&part(2)).unwrap()
            })
            .collect();
        let context = Tensor::cat(&context, 1).unwrap();
        let update = self.linear(&context, &name("attention.output"));
        let x = self.normalise(&(x + update).unwrap(), &name("attention.norm"));
        let inner = self.linear(&x, &name("feed_forward.inner")).gelu_erf();
        let update = self.linear(&inner.unwrap(), &name("feed_forward.outer"));
        self.normalise(&(x + update).unwrap(), &name("feed_forward.norm"))
    }

    /// Summed cross-entropy of the targets, with the output tied to the token table.
    fn language_model_loss(&self, input: &LanguageModelBatch) -> Tensor {
        let states = self.states(&input.batch, input.direction);
        let last = &states[self.shape.settings.layers];
        tied_loss(
            last,
            &input.targets,
            self.get("embeddings.token"),
            self.get("output.bias"),
        )
    }

    /// The gradient of a loss for each parameter; zeros where there is none. The embedding of `<pad>` is never trained by
    /// lookups, which the tests' losses know of: they use it in no batch.
    fn gradients(&self, loss: &Tensor) -> BTreeMap<String, Vec<f64>> {
        let store = loss.backward().unwrap();
        let of_variable = |variable: &Var| match store.get(variable.as_tensor()) {
            Some(gradient) => gradient.flatten_all().unwrap().to_vec1().unwrap(),
            None => vec![0.0; variable.elem_count()],
        };
        self.variables
            .iter()
            .map(|(name, variable)| (name.clone(), of_variable(variable)))
            .collect()
    }
}

/// Summed cross-entropy of `targets` under logits = states . table^T + bias, in the precision of its operands.
fn tied_loss(states: &Tensor, targets: &Targets, table: &Tensor, bias: &Tensor) -> Tensor {
    let indices = Tensor::new(targets.indices.as_slice(), &Place::Cpu).unwrap();
    let labels = Tensor::new(targets.labels.as_slice(), &Place::Cpu)
        .unwrap()
        .unsqueeze(1)
        .unwrap();
    let logits = states
        .index_select(&indices, 0)
        .unwrap()
        .matmul(&table.t().unwrap())
        .unwrap()
        .broadcast_add(bias)
        .unwrap();
    let sums = logits.exp().unwrap().sum_keepdim(1).unwrap().log().unwrap();
    (sums - logits.gather(&labels, 1).unwrap())
        .unwrap()
        .sum_all()
        .unwrap()
}

/// A batch without `<pad>`, whose embedding lookups do not train.
fn batch(lengths: &[usize], seed: u64, direction: Direction) -> LanguageModelBatch {
    let mut input = random_batch(&shape(), lengths, seed);
    for token in &mut input.batch.tokens {
        *token = (*token).max(3);
    }
    input.direction = direction;
    input
}

/// Every gradient within 1e-4 of its tensor's largest entry; key biases, whose true gradient is zero, within 1e-6 of the
/// global norm.
fn assert_agree(trainer: &Trainer, expected: &BTreeMap<String, Vec<f64>>, what: &str) {
    let norm: f64 = expected
        .values()
        .flatten()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    let hidden = trainer.shape().settings.hidden;
    for (name, ours) in gradients(trainer) {
        let theirs = &expected[&name];
        let largest = theirs
            .iter()
            .fold(0f64, |most, value| most.max(value.abs()));
        for (index, (a, b)) in ours.iter().zip(theirs).enumerate() {
            let key_bias =
                name.ends_with("query_key_value.bias") && (hidden..2 * hidden).contains(&index);
            let allowed = if key_bias {
                1e-6 * norm
            } else {
                1e-4 * largest
            };
            assert!(
                (f64::from(*a) - b).abs() <= allowed,
                "{what}: {name}[{index}]: {a} here, {b} in candle"
            );
        }
    }
}

/// A loss of every token at a lower tap.
fn lower_loss(states: &Tensor) -> Tensor {
    states.tanh().unwrap().sqr().unwrap().sum_all().unwrap()
}

#[test]
fn two_taps_and_a_tied_table_agree_with_autograd() {
    for direction in [Direction::Bidirectional, Direction::Causal] {
        let input = batch(&[5, 1, 9, 3], 1, direction);
        let mut ours = trainer(&shape(), 2);
        let pass = ours
            .forward(&input.batch, direction, &[Tap::Last, Tap::Layer(1)])
            .unwrap();
        let table = ours.parameter("embeddings.token").unwrap();
        let bias = ours.parameter("output.bias").unwrap();
        let upper = tied_loss(&pass.tap(Tap::Last).unwrap(), &input.targets, &table, &bias);
        let lower = lower_loss(&pass.tap(Tap::Layer(1)).unwrap());
        let loss = (upper + lower).unwrap();
        ours.backward_loss(vec![pass], &loss).unwrap();

        let reference = Reference::of(ours.model().unwrap());
        let states = reference.states(&input.batch, direction);
        let expected = (reference.language_model_loss(&input) + lower_loss(&states[1])).unwrap();
        assert_agree(&ours, &reference.gradients(&expected), "two taps");
    }
}

#[test]
fn two_live_passes_and_the_fused_loss_in_one_step_agree_with_autograd() {
    let first = batch(&[4, 7], 2, Direction::Bidirectional);
    let second = batch(&[6, 2, 3], 3, Direction::Causal);
    let third = batch(&[8, 5], 4, Direction::Bidirectional);
    let mut ours = trainer(&shape(), 2);
    let passes = [&first, &second].map(|input| {
        ours.forward(&input.batch, input.direction, &[Tap::Last])
            .unwrap()
    });
    // One loss over the states of both passes: neither gradient is known before both forwards are done.
    let joint = |a: &Tensor, b: &Tensor| {
        let means = [a, b].map(|states| states.sin().unwrap().sum(0).unwrap());
        (&means[0] * &means[1]).unwrap().sum_all().unwrap()
    };
    let loss = joint(
        &passes[0].tap(Tap::Last).unwrap(),
        &passes[1].tap(Tap::Last).unwrap(),
    );
    ours.accumulate_language_model(std::slice::from_ref(&third), 1.0)
        .unwrap();
    ours.backward_loss(passes.into(), &loss).unwrap();

    let reference = Reference::of(ours.model().unwrap());
    let states = [&first, &second].map(|input| {
        let mut states = reference.states(&input.batch, input.direction);
        states.pop().unwrap()
    });
    let expected = (joint(&states[0], &states[1]) + reference.language_model_loss(&third)).unwrap();
    assert_agree(&ours, &reference.gradients(&expected), "two passes");
}

#[test]
fn gradients_accumulated_over_micro_batches_agree_with_autograd() {
    let whole = [
        batch(&[3, 6], 5, Direction::Bidirectional),
        batch(&[1, 1, 1], 6, Direction::Bidirectional),
        batch(&[12], 7, Direction::Causal),
        batch(&[2, 64, 5], 8, Direction::Bidirectional),
    ];
    let reference = Reference::of(trainer(&shape(), 1).model().unwrap());
    let losses = whole
        .iter()
        .map(|input| reference.language_model_loss(input));
    let total = losses.reduce(|a, b| (a + b).unwrap()).unwrap();
    let expected = reference.gradients(&total);
    for parts in [1, 2, 4] {
        let mut ours = trainer(&shape(), 2);
        for micro in whole.chunks(whole.len() / parts) {
            ours.accumulate_language_model(micro, 1.0).unwrap();
        }
        assert_agree(&ours, &expected, &format!("{parts} parts"));
    }
}

/// AdamW as PyTorch writes it, on the reference's variables; parameters that `frozen` names rest, and each counts its own
/// updates.
struct ReferenceAdam {
    settings: AdamSettings,
    state: BTreeMap<String, (u64, Vec<f64>, Vec<f64>)>,
}

impl ReferenceAdam {
    fn step(&mut self, reference: &Reference, loss: &Tensor, frozen: impl Fn(&str) -> bool) {
        let s = &self.settings;
        let gradients = reference.gradients(loss);
        let norm: f64 = gradients
            .iter()
            .filter(|(name, _)| !frozen(name))
            .flat_map(|(_, values)| values.iter().map(|value| value * value))
            .sum::<f64>()
            .sqrt();
        let clipping = (s.clip.unwrap() / (norm + 1e-6)).min(1.0);
        for (name, gradient) in gradients.iter().filter(|(name, _)| !frozen(name)) {
            let variable = &reference.variables[name];
            let mut values: Vec<f64> = variable.flatten_all().unwrap().to_vec1().unwrap();
            let (count, first, second) = self
                .state
                .entry(name.clone())
                .or_insert_with(|| (0, vec![0.0; values.len()], vec![0.0; values.len()]));
            *count += 1;
            let correct = |beta: f64| 1.0 - beta.powf(*count as f64);
            for (i, value) in values.iter_mut().enumerate() {
                let gradient = clipping * gradient[i];
                first[i] = s.beta1 * first[i] + (1.0 - s.beta1) * gradient;
                second[i] = s.beta2 * second[i] + (1.0 - s.beta2) * gradient * gradient;
                let root = (second[i] / correct(s.beta2)).sqrt() + s.epsilon;
                *value *= 1.0 - s.learning_rate * s.weight_decay;
                *value -= s.learning_rate * first[i] / correct(s.beta1) / root;
            }
            let updated = Tensor::from_vec(values, variable.shape(), &Place::Cpu).unwrap();
            variable.set(&updated).unwrap();
        }
    }
}

#[test]
fn parameters_frozen_and_then_trained_go_where_adam_takes_them_in_autograd() {
    let lower = |name: &str| name.starts_with("embeddings.") || name.starts_with("layers.0.");
    let upper = |name: &str| name.starts_with("layers.1.") || name == "output.bias";
    let nothing = |_: &str| false;
    let phases: [&dyn Fn(&str) -> bool; 3] = [&lower, &nothing, &upper];
    // Epsilon keeps key biases still, whose gradients are rounding.
    let settings = AdamSettings {
        epsilon: 1e-4,
        ..adam(1e-3)
    };
    let model = Model::initialise(&shape(), 5);
    let reference = Reference::of(&model);
    let mut ours = Trainer::new(model, &settings, 100, &Device::cpu(2), 9).unwrap();
    let mut theirs = ReferenceAdam {
        settings,
        state: BTreeMap::new(),
    };
    for (phase, frozen) in phases.into_iter().enumerate() {
        ours.freeze(frozen).unwrap();
        let before = ours.model().unwrap().clone();
        for update in 0..3 {
            let input = batch(&[6, 4, 9], 20 + update, Direction::Bidirectional);
            let count = input.targets.labels.len() as f64;
            ours.language_model_step(std::slice::from_ref(&input))
                .unwrap();
            let loss = (reference.language_model_loss(&input) / count).unwrap();
            theirs.step(&reference, &loss, frozen);
        }
        for ((name, _, now), (_, _, then)) in
            ours.model().unwrap().parameters().zip(before.parameters())
        {
            assert_eq!(now == then, frozen(name), "phase {phase}: {name}");
            let expected: Vec<f64> = reference
                .get(name)
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap();
            for (a, b) in now.iter().zip(&expected) {
                assert!(
                    (f64::from(*a) - b).abs() < 2e-5,
                    "phase {phase}: {name}: {a} here, {b} in candle"
                );
            }
        }
    }
}

#[test]
fn a_state_saved_between_phases_of_freezing_goes_on_with_the_same_bits() {
    let lower = |name: &str| name.starts_with("embeddings.") || name.starts_with("layers.0.");
    let step = |trainer: &mut Trainer, update: u64| {
        let input = batch(&[6, 4, 9], 40 + update, Direction::Bidirectional);
        trainer
            .language_model_step(std::slice::from_ref(&input))
            .unwrap();
    };
    let mut whole = trainer(&shape(), 2);
    whole.freeze(lower).unwrap();
    (0..3).for_each(|update| step(&mut whole, update));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    whole.save_state(&file).unwrap();
    whole.freeze(|_| false).unwrap();
    (3..6).for_each(|update| step(&mut whole, update));

    let mut resumed = trainer(&shape(), 1);
    resumed.load_state(&file).unwrap();
    (3..6).for_each(|update| step(&mut resumed, update));
    assert_eq!(
        all_values(whole.model().unwrap()),
        all_values(resumed.model().unwrap())
    );
}

#[test]
fn lending_a_parameter_that_is_not_there_is_an_error() {
    let mut trainer = trainer(&shape(), 1);
    let error = trainer.parameter("embeddings.tokens").unwrap_err();
    assert!(error.to_string().contains("embeddings.tokens"), "{error}");
}
