//! Runs a plan on this machine.
//!
//! What is needed is found from the targets backwards: an artifact that is there needs nothing. Workers then take the
//! first job whose inputs are done. Two processes on one store share the work: a job that another one holds is looked
//! at again later, and taken over when its holder died.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::board::{Board, State};
use super::perform::{Surroundings, perform};
use super::{Event, Options, Outcome, Reporter, StageRunner};
use crate::kernels::Device;
use crate::plan::Plan;
use crate::stages::Stop;
use crate::store::{self, Acquired, Condition, Machine, Record, Store};

/// Between two looks at a job that another process holds. Our choice.
const PATIENCE: Duration = Duration::from_millis(250);

/// Runs what the targets need and is not there. A failing job stops only the jobs that need it.
///
/// # Errors
/// When the store cannot be read or written, or the plan is not one. A job's own error is in the outcome.
pub fn run(
    plan: &Plan,
    store: &Store,
    options: &Options,
    stage: &StageRunner,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Outcome> {
    let mut board = Board::new(plan, options.targets.as_deref())?;
    let mut damaged = Vec::new();
    for target in board.targets.clone() {
        board.need(target, plan, store, &mut damaged)?;
    }
    board.need_damaged(plan, store, &mut damaged)?;
    let count =
        |wanted: fn(&State) -> bool| board.states.iter().filter(|state| wanted(state)).count();
    let to_run = count(|state| matches!(state, State::Waiting { .. }));
    let reused = count(|state| matches!(state, State::Done { .. }));
    reporter.event(&Event::Planned { to_run, reused });
    for (index, problems) in &damaged {
        reporter.event(&Event::Damaged {
            job: &plan.jobs[*index],
            problems,
        });
    }
    if to_run > 0 {
        store.sweep()?;
        let slots = options.jobs.clamp(1, to_run);
        let around = Surroundings {
            options,
            stage,
            reporter,
            stop,
        };
        let run = Run {
            plan,
            store,
            around,
            slots,
            board: Mutex::new(board),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 1..slots {
                scope.spawn(|| run.work());
            }
            run.work();
        });
        board = run
            .board
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
    }
    Ok(board.outcome())
}

struct Run<'a> {
    plan: &'a Plan,
    store: &'a Store,
    around: Surroundings<'a>,
    /// Workers side by side.
    slots: usize,
    board: Mutex<Board>,
    changed: Condvar,
}

/// What came of trying a job.
enum Tried {
    Done {
        record: Box<Record>,
        elsewhere: bool,
    },
    /// Another process holds it or an input: who.
    Busy(String),
    /// Inputs that are not what was recorded, or gone.
    Lost(Vec<usize>),
    Interrupted,
}

impl Run<'_> {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One worker: jobs until none is left or somebody asks to stop.
    fn work(&self) {
        // Made when there is something to do with it.
        let mut device = None;
        while let Some(job) = self.take() {
            let tried = self.attempt(job, &mut device);
            self.settle(job, tried);
            self.changed.notify_all();
        }
    }

    /// Waits for a job that can start.
    fn take(&self) -> Option<usize> {
        let mut board = self.board();
        while !self.around.stop.asked() && board.unsettled() {
            if let Some(job) = board.ready() {
                board.states[job] = State::Running;
                return Some(job);
            }
            board = self
                .changed
                .wait_timeout(board, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        None
    }

    fn attempt(&self, number: usize, device: &mut Option<Device>) -> Result<Tried> {
        let job = &self.plan.jobs[number];
        // Held before looked at: what is sound now stays so while the job reads it.
        let mut holds = Vec::new();
        for input in job.inputs.values() {
            match self.store.hold(input)? {
                Some(hold) => holds.push(hold),
                None => return Ok(Tried::Busy(self.store.holder(input))),
            }
        }
        let mut inputs = BTreeMap::new();
        let mut lost = Vec::new();
        for (name, input) in &job.inputs {
            match self.store.verify(input)? {
                Condition::Sound(artifact) => {
                    inputs.insert(name.clone(), artifact.folder);
                }
                Condition::Damaged { .. } | Condition::Missing => {
                    lost.push(self.board().index[input])
                }
            }
        }
        if !lost.is_empty() {
            return Ok(Tried::Lost(lost));
        }
        let options = self.around.options;
        let device = match device {
            Some(device) => device,
            None => device.insert((options.device)((options.threads / self.slots).max(1))?),
        };
        let machine = Machine {
            device: device.description(),
            instruction_set: device.instruction_set(),
        };
        let done = |record, elsewhere| Tried::Done {
            record: Box::new(record),
            elsewhere,
        };
        Ok(
            match self.store.acquire(job, &machine, options.resume_anywhere)? {
                Acquired::Finished(artifact) => done(artifact.record, true),
                Acquired::Busy(holder) => Tried::Busy(holder),
                Acquired::Work(workplace) => {
                    match perform(job, workplace, &inputs, device, &self.around)? {
                        Some(artifact) => done(artifact.record, false),
                        None => Tried::Interrupted,
                    }
                }
            },
        )
    }

    fn settle(&self, number: usize, tried: Result<Tried>) {
        let (job, reporter) = (&self.plan.jobs[number], self.around.reporter);
        let mut board = self.board();
        let failure = match tried {
            Ok(Tried::Done { record, elsewhere }) => {
                board.states[number] = State::Done {
                    reused: false,
                    diverged: record.diverged(),
                };
                reporter.event(&Event::Finished {
                    job,
                    record: &record,
                    elsewhere,
                });
                None
            }
            Ok(Tried::Busy(holder)) => {
                board.states[number] = State::Waiting {
                    after: Some(Instant::now() + PATIENCE),
                };
                if !std::mem::replace(&mut board.told[number], true) {
                    reporter.event(&Event::Waiting {
                        job,
                        holder: &holder,
                    });
                }
                None
            }
            Ok(Tried::Lost(inputs)) => match board.remake(number, &inputs, self.plan, self.store) {
                Ok(damaged) => {
                    for (input, problems) in damaged {
                        reporter.event(&Event::Damaged {
                            job: &self.plan.jobs[input],
                            problems: &problems,
                        });
                    }
                    None
                }
                Err(error) => Some(error),
            },
            Ok(Tried::Interrupted) => {
                board.states[number] = State::Interrupted;
                reporter.event(&Event::Interrupted { job });
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            let error = store::with_remedy(error);
            reporter.event(&Event::Failed { job, error: &error });
            board.states[number] = State::Failed(error);
        }
        for skipped in board.skip() {
            reporter.event(&Event::Skipped {
                job: &self.plan.jobs[skipped],
            });
        }
    }
}
