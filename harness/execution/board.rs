//! Where every job of a plan stands: what is needed, what can start, what can no longer run.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::Outcome;
use crate::fingerprint::Fingerprint;
use crate::plan::Plan;
use crate::store::{Condition, Store};

/// An artifact damaged again right after it was made means a broken disk, not an accident. Our choice.
const LARGEST_REMAKES: u32 = 2;

/// Jobs whose artifacts are not what was recorded, and what is wrong with them.
pub(super) type Damaged = Vec<(usize, Vec<String>)>;

#[derive(Debug)]
pub(super) enum State {
    /// Nothing that is wanted needs it.
    Unneeded,
    /// Not before `after`, when another process holds it.
    Waiting {
        after: Option<Instant>,
    },
    Running,
    Done {
        reused: bool,
        diverged: bool,
    },
    Failed(anyhow::Error),
    Skipped,
    Interrupted,
}

/// Where every job stands.
pub(super) struct Board {
    pub(super) states: Vec<State>,
    pub(super) index: BTreeMap<Fingerprint, usize>,
    /// Per job, its inputs.
    inputs: Vec<Vec<usize>>,
    pub(super) targets: Vec<usize>,
    remakes: Vec<u32>,
    /// Somebody was told that another process holds the job.
    pub(super) told: Vec<bool>,
}

impl Board {
    pub(super) fn new(plan: &Plan, targets: Option<&[Fingerprint]>) -> Result<Self> {
        let mut index = BTreeMap::new();
        let mut inputs: Vec<Vec<usize>> = Vec::new();
        for (number, job) in plan.jobs.iter().enumerate() {
            let of_job = job.inputs.iter().map(|(name, input)| {
                index.get(input).copied().with_context(|| {
                    format!(
                        "`{}` needs `{name}`, which no job before it makes",
                        job.label
                    )
                })
            });
            inputs.push(of_job.collect::<Result<_>>()?);
            if index.insert(job.fingerprint.clone(), number).is_some() {
                bail!("the plan has `{}` twice", job.label);
            }
        }
        let targets = match targets {
            Some(targets) => {
                let number = |target: &Fingerprint| {
                    index
                        .get(target)
                        .copied()
                        .with_context(|| format!("no job of the plan makes {}", target.short()))
                };
                targets.iter().map(number).collect::<Result<_>>()?
            }
            None => (0..inputs.len())
                .filter(|job| !inputs.iter().flatten().any(|input| input == job))
                .collect(),
        };
        let states = plan.jobs.iter().map(|_| State::Unneeded).collect();
        let remakes = vec![0; plan.jobs.len()];
        let told = vec![false; plan.jobs.len()];
        Ok(Self {
            states,
            index,
            inputs,
            targets,
            remakes,
            told,
        })
    }

    /// Makes sure that a job is done or will be, and what it needs if it must run.
    pub(super) fn need(
        &mut self,
        job: usize,
        plan: &Plan,
        store: &Store,
        damaged: &mut Damaged,
    ) -> Result<()> {
        let mut left = vec![job];
        while let Some(job) = left.pop() {
            if !matches!(self.states[job], State::Unneeded) {
                continue;
            }
            self.states[job] = match store.condition(&plan.jobs[job].fingerprint)? {
                Condition::Sound(artifact) => State::Done {
                    reused: true,
                    diverged: artifact.record.diverged(),
                },
                Condition::Missing => State::Waiting { after: None },
                Condition::Damaged { problems, .. } => {
                    damaged.push((job, problems));
                    State::Waiting { after: None }
                }
            };
            if matches!(self.states[job], State::Waiting { .. }) {
                left.extend(&self.inputs[job]);
            }
        }
        Ok(())
    }

    /// What nothing needs but is damaged is made again too: the store stays what it was.
    pub(super) fn need_damaged(
        &mut self,
        plan: &Plan,
        store: &Store,
        damaged: &mut Damaged,
    ) -> Result<()> {
        for job in 0..plan.jobs.len() {
            if matches!(self.states[job], State::Unneeded)
                && matches!(
                    store.condition(&plan.jobs[job].fingerprint)?,
                    Condition::Damaged { .. }
                )
            {
                self.need(job, plan, store, damaged)?;
            }
        }
        Ok(())
    }

    /// An input that was thought done is not: it and this job wait again. Returns what else turned out damaged,
    /// the input included.
    pub(super) fn remake(
        &mut self,
        job: usize,
        lost: &[usize],
        plan: &Plan,
        store: &Store,
    ) -> Result<Damaged> {
        let mut damaged = Vec::new();
        for &input in lost {
            // Another job that reads it may have asked already.
            if matches!(self.states[input], State::Done { .. }) {
                self.remakes[input] += 1;
                if self.remakes[input] > LARGEST_REMAKES {
                    bail!(
                        "`{}` was damaged or removed again and again right after it was made; is the disk broken?",
                        plan.jobs[input].label
                    );
                }
                self.states[input] = State::Unneeded;
                self.need(input, plan, store, &mut damaged)?;
            }
        }
        self.states[job] = State::Waiting { after: None };
        Ok(damaged)
    }

    /// The first job that can start now.
    pub(super) fn ready(&self) -> Option<usize> {
        let now = Instant::now();
        (0..self.states.len()).find(|&job| {
            matches!(self.states[job], State::Waiting { after, .. } if after.is_none_or(|after| after <= now))
                && self.inputs[job].iter().all(|&input| matches!(self.states[input], State::Done { .. }))
        })
    }

    /// Something may still start or end.
    pub(super) fn unsettled(&self) -> bool {
        self.states
            .iter()
            .any(|state| matches!(state, State::Waiting { .. } | State::Running))
    }

    /// Marks what can no longer run because of a failure; returns it.
    pub(super) fn skip(&mut self) -> Vec<usize> {
        let mut skipped = Vec::new();
        // Inputs come before their users, so one pass reaches all.
        for job in 0..self.states.len() {
            let hopeless =
                |&input: &usize| matches!(self.states[input], State::Failed(_) | State::Skipped);
            if matches!(self.states[job], State::Waiting { .. })
                && self.inputs[job].iter().any(hopeless)
            {
                self.states[job] = State::Skipped;
                skipped.push(job);
            }
        }
        skipped
    }

    pub(super) fn outcome(self) -> Outcome {
        let mut outcome = Outcome::default();
        for (job, state) in self.states.into_iter().enumerate() {
            match state {
                State::Unneeded => {}
                State::Waiting { .. } | State::Running | State::Interrupted => {
                    outcome.interrupted.push(job)
                }
                State::Failed(error) => outcome.failed.push((job, error)),
                State::Skipped => outcome.skipped.push(job),
                State::Done { reused, diverged } => {
                    if reused {
                        outcome.reused.push(job)
                    } else {
                        outcome.finished.push(job)
                    }
                    if diverged {
                        outcome.diverged.push(job);
                    }
                }
            }
        }
        outcome
    }
}
