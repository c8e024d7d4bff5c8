//! The state of a training run in one file, so that a resumed run continues bit for bit.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::settings::AdamSettings;
use super::trainer::Trainer;
use crate::kernels::Precision;
use crate::model::Shape;
use crate::model::parameters::{open, read_tensor, view, write_file};

/// The metadata key that holds the record.
const RECORD: &str = "xlt.training_state";

/// What must agree between a state and the trainer that takes it, and where the state stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    shape: Shape,
    optimizer: AdamSettings,
    total_updates: u64,
    seed: u64,
    /// Learning rates of head parameters.
    heads: BTreeMap<String, f64>,
    update: u64,
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    precision: Precision,
    /// Updates of parameters that have had fewer: they were frozen for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    own_updates: BTreeMap<String, u64>,
}

impl Trainer {
    fn record(&self) -> Record {
        Record {
            shape: self.shape().clone(),
            optimizer: self.settings.clone(),
            total_updates: self.total_updates,
            seed: self.seed,
            heads: self
                .heads
                .0
                .iter()
                .map(|(name, head)| (name.clone(), head.learning_rate))
                .collect(),
            update: self.update,
            precision: self.encoder.precision(),
            own_updates: self
                .encoder
                .layout()
                .entries
                .iter()
                .zip(&self.own_updates)
                .filter(|(_, own)| **own != self.update)
                .map(|(entry, own)| (entry.name.clone(), *own))
                .collect(),
        }
    }

    /// Writes parameters, heads, moments and counters, between updates only. The same state gives the same bytes.
    pub fn save_state(&self, path: &Path) -> Result<()> {
        ensure!(
            self.passes == 0,
            "a state can be saved between updates only; apply or clear the gradients first"
        );
        let mut views = Vec::new();
        let model = self.model()?;
        let of_card;
        let (first, second): (&[f32], &[f32]) = match (self.encoder.card()?, &self.on_card) {
            (Some(card), Some(on_card)) => {
                of_card = on_card.moments(card)?;
                (&of_card[0], &of_card[1])
            }
            _ => (&self.first, &self.second),
        };
        for entry in &self.encoder.layout().entries {
            let parts = [
                ("parameters", model.values()),
                ("first", first),
                ("second", second),
            ];
            for (part, buffer) in parts {
                views.push((
                    format!("{part}/{}", entry.name),
                    view(&entry.dims, &buffer[entry.range.clone()])?,
                ));
            }
        }
        for (name, head) in &self.heads.0 {
            let parts = [
                ("heads", &head.values),
                ("heads.first", &head.first),
                ("heads.second", &head.second),
            ];
            for (part, values) in parts {
                views.push((format!("{part}/{name}"), view(&head.dims, values)?));
            }
        }
        let metadata = HashMap::from([(RECORD.to_owned(), serde_json::to_string(&self.record())?)]);
        write_file(path, &safetensors::serialize(views, Some(metadata))?)
            .with_context(|| format!("cannot write the training state {}", path.display()))
    }

    /// Continues from a state of the same shape, optimizer, seed, precision and heads (added before); what is frozen is for
    /// the caller to say again. On an error the trainer is as it was, unless a card fails while it is written to.
    pub fn load_state(&mut self, path: &Path) -> Result<()> {
        let context = || format!("cannot resume from {}", path.display());
        let bytes = std::fs::read(path).with_context(context)?;
        self.read_state(&bytes).with_context(context)
    }

    fn read_state(&mut self, bytes: &[u8]) -> Result<()> {
        let (file, metadata) = open(bytes)?;
        let record = metadata
            .get(RECORD)
            .context("it is no training state; a model alone cannot be resumed")?;
        let record: Record =
            serde_json::from_str(record).context("its record is not understood")?;
        let own = self.record();
        same("shape", &record.shape, &own.shape)?;
        same("optimizer", &record.optimizer, &own.optimizer)?;
        same("total updates", &record.total_updates, &own.total_updates)?;
        same("seed", &record.seed, &own.seed)?;
        same("precision", &record.precision, &own.precision)?;
        same("head parameters", &record.heads, &own.heads)?;

        // Everything is read before anything is replaced.
        let length = self.encoder.layout().length;
        let mut buffers = ["parameters", "first", "second"].map(|part| (part, vec![0f32; length]));
        for entry in &self.encoder.layout().entries {
            for (part, buffer) in &mut buffers {
                let name = format!("{part}/{}", entry.name);
                read_tensor(&file, &name, &entry.dims, &mut buffer[entry.range.clone()])?;
            }
        }
        let mut heads = Vec::new();
        for (name, head) in &self.heads.0 {
            let mut parts = ["heads", "heads.first", "heads.second"]
                .map(|part| (part, vec![0f32; head.values.len()]));
            for (part, values) in &mut parts {
                read_tensor(&file, &format!("{part}/{name}"), &head.dims, values)?;
            }
            heads.push(parts.map(|(_, values)| values));
        }
        let [parameters, first, second] = buffers.map(|(_, values)| values);
        self.clear_gradients()?;
        match (self.encoder.card()?, &self.on_card) {
            (Some(card), Some(on_card)) => {
                // Into memory that is there: nothing is allocated that could be missing.
                card.upload(&parameters)?;
                on_card.set_moments(card, &first, &second)?;
                self.encoder.changed_on_card();
            }
            _ => {
                self.encoder.values_mut().copy_from_slice(&parameters);
                self.first.copy_from_slice(&first);
                self.second.copy_from_slice(&second);
            }
        }
        for (head, [values, first, second]) in self.heads.0.values_mut().zip(heads) {
            (head.values, head.first, head.second) = (values, first, second);
            head.publish()?;
        }
        self.lent.clear();
        self.update = record.update;
        let layout = self.encoder.layout();
        for (entry, own) in layout.entries.iter().zip(&mut self.own_updates) {
            *own = *record
                .own_updates
                .get(&entry.name)
                .unwrap_or(&record.update);
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, stored: &T, own: &T) -> Result<()> {
    ensure!(
        stored == own,
        "its {what} differs: {stored:?} in the file, {own:?} here; resume with the settings it was made with"
    );
    Ok(())
}
