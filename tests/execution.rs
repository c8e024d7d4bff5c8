//! Running plans: only what is needed, in order, around failures, beside other processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use xlt::commands::status;
use xlt::execution::progress::{Lines, Silent};
use xlt::execution::{Options, Outcome, Reporter, run};
use xlt::kernels::Device;
use xlt::plan::{Job, Plan};
use xlt::stages::{Context, Diverged, Stop};
use xlt::store::{Selection, Store};

use crate::store::{damage, folder, job, rot, store_in};

fn options(jobs: usize) -> Options<'static> {
    Options {
        jobs,
        threads: 2,
        device: &|threads| Ok(Device::cpu(threads)),
        checkpoint_interval: Duration::from_secs(60),
        resume_anywhere: false,
        targets: None,
    }
}

/// a <- b <- d, a <- c
fn diamond() -> Plan {
    let a = job("corpus", json!("a"), &[]);
    let b = job("pretrain", json!("b"), &[("corpus", &a)]);
    let c = job("pretrain", json!("c"), &[("corpus", &a)]);
    let d = job("finetune", json!("d"), &[("pretrain", &b)]);
    Plan {
        jobs: vec![a, b, c, d],
        ..Plan::default()
    }
}

fn name(job: &Job) -> String {
    job.settings.as_str().unwrap().to_owned()
}

/// Which jobs ran, in order.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn work(&self, job: &Job, context: &Context) -> Result<Value> {
        self.0.lock().unwrap().push(name(job));
        let mut text = name(job);
        for (name, folder) in context.inputs {
            text += &format!(" {name}({})", fs::read_to_string(folder.join("text"))?);
        }
        fs::write(context.output.join("text"), text)?;
        Ok(json!({"job": name(job)}))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn labels(plan: &Plan, jobs: &[usize]) -> Vec<String> {
    jobs.iter().map(|&job| name(&plan.jobs[job])).collect()
}

fn simply(plan: &Plan, store: &Store, log: &Log) -> Outcome {
    run(
        plan,
        store,
        &options(1),
        &|job, context| log.work(job, context),
        &Silent,
        &Stop::default(),
    )
    .unwrap()
}

#[test]
fn inputs_run_first_and_a_second_run_reuses_everything() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    let outcome = simply(&plan, &store, &log);
    assert_eq!(log.take(), ["a", "b", "c", "d"]);
    assert!(outcome.complete() && outcome.finished == [0, 1, 2, 3]);
    let d = store.find(&plan.jobs[3].fingerprint).unwrap().unwrap();
    assert_eq!(
        fs::read_to_string(d.folder.join("text")).unwrap(),
        "d pretrain(b corpus(a))"
    );
    let outcome = simply(&plan, &store, &log);
    assert_eq!(log.take(), [""; 0]);
    assert_eq!(outcome.reused, [2, 3], "only targets are looked at");
}

#[test]
fn what_is_there_needs_no_inputs() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    simply(&plan, &store, &log);
    log.take();
    let remove = |stage: &str| {
        let selection = Selection {
            names: vec![stage.to_owned()],
            ..Selection::default()
        };
        store.remove(&selection, false).unwrap()
    };
    remove("corpus");
    assert!(simply(&plan, &store, &log).complete());
    assert_eq!(log.take(), [""; 0]);
    remove("finetune");
    simply(&plan, &store, &log);
    assert_eq!(log.take(), ["d"], "b is there, so a is not missed");
    let only_c = Options {
        targets: Some(vec![plan.jobs[2].fingerprint.clone()]),
        ..options(1)
    };
    remove("pretrain");
    run(
        &plan,
        &store,
        &only_c,
        &|job, context| log.work(job, context),
        &Silent,
        &Stop::default(),
    )
    .unwrap();
    assert_eq!(log.take(), ["a", "c"]);
}

#[test]
fn a_failing_job_stops_only_what_needs_it() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    for panics in [false, true] {
        let stage = |job: &Job, context: &Context| {
            if name(job) == "b" {
                fs::write(context.output.join("half"), "")?;
                assert!(!panics, "an impossible thing");
                bail!("a wrong thing");
            }
            log.work(job, context)
        };
        let outcome = run(
            &plan,
            &store,
            &options(1),
            &stage,
            &Silent,
            &Stop::default(),
        )
        .unwrap();
        assert_eq!(
            (outcome.failed[0].0, labels(&plan, &outcome.skipped)),
            (1, vec!["d".to_owned()])
        );
        let text = format!("{:#}", outcome.failed[0].1);
        assert!(
            text.contains(if panics {
                "panicked: an impossible thing"
            } else {
                "a wrong thing"
            }),
            "{text}"
        );
        assert!(!outcome.complete());
    }
    assert_eq!(log.take(), ["a", "c"]);
    assert_eq!(
        store.sizes().unwrap().unfinished,
        0,
        "nothing half-made stays"
    );
    simply(&plan, &store, &log);
    assert_eq!(log.take(), ["b", "d"]);
}

/// Waits until `count` threads are in it; false when they do not come.
#[derive(Default)]
struct Meeting(Mutex<usize>, Condvar);

impl Meeting {
    fn meet(&self, count: usize) -> bool {
        let mut here = self.0.lock().unwrap();
        *here += 1;
        self.1.notify_all();
        let (here, _) = self
            .1
            .wait_timeout_while(here, Duration::from_secs(20), |here| *here < count)
            .unwrap();
        *here >= count
    }
}

#[test]
fn two_jobs_run_side_by_side_when_asked() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    let (meeting, threads) = (Meeting::default(), Mutex::new(Vec::new()));
    let stage = |job: &Job, context: &Context| {
        threads.lock().unwrap().push(context.device.threads());
        if ["b", "c"].contains(&name(job).as_str()) && !meeting.meet(2) {
            bail!("alone");
        }
        log.work(job, context)
    };
    let outcome = run(
        &plan,
        &store,
        &options(2),
        &stage,
        &Silent,
        &Stop::default(),
    )
    .unwrap();
    assert!(outcome.complete(), "{outcome:?}");
    assert_eq!(
        *threads.lock().unwrap(),
        [1; 4],
        "two threads shared by two jobs"
    );
}

#[test]
fn an_interrupted_job_goes_on_from_its_checkpoint() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    let stop = Stop::default();
    let stage = |job: &Job, context: &Context| {
        if name(job) == "b" {
            context.progress.begin(40, 10, "updates");
            fs::write(context.checkpoints.join("state"), "update 10")?;
            stop.ask();
            context.stop_if_asked()?;
        }
        log.work(job, context)
    };
    let outcome = run(&plan, &store, &options(1), &stage, &Silent, &stop).unwrap();
    assert_eq!(labels(&plan, &outcome.interrupted), ["b", "c", "d"]);
    assert!(outcome.failed.is_empty() && !outcome.complete());
    let lines = status::lines(&store, Some(&plan)).unwrap();
    assert_eq!(lines[0].state, status::State::Finished);
    assert!(
        matches!(&lines[1].state, status::State::Interrupted(job) if job.status.done == 10 && job.status.total == 40)
    );
    assert_eq!(lines[2].state, status::State::Waiting);
    log.take();
    let stage = |job: &Job, context: &Context| {
        if name(job) == "b" {
            assert_eq!(
                fs::read_to_string(context.checkpoints.join("state"))?,
                "update 10"
            );
            assert_eq!(fs::read_dir(context.output)?.count(), 0);
        }
        log.work(job, context)
    };
    assert!(
        run(
            &plan,
            &store,
            &options(1),
            &stage,
            &Silent,
            &Stop::default()
        )
        .unwrap()
        .complete()
    );
    assert_eq!(log.take(), ["b", "c", "d"]);
}

#[test]
fn a_diverged_run_is_kept_seen_by_later_stages_and_not_tried_again() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    let stage = |job: &Job, context: &Context| {
        if name(job) == "b" {
            let kept = context.checkpoints.join("last-finite");
            fs::create_dir(&kept)?;
            fs::write(kept.join("state"), "update 11")?;
            let folder = kept.display().to_string();
            return Err(anyhow::Error::new(Diverged {
                update: 12,
                what: "the loss".to_owned(),
                folder,
            })
            .context("mlm"));
        }
        if name(job) == "d" {
            log.0.lock().unwrap().push("d".to_owned());
            let said: Value = serde_json::from_slice(&fs::read(
                context.input("pretrain")?.join("diverged.json"),
            )?)?;
            assert_eq!(
                said,
                json!({"update": 12, "what": "the loss", "kept": "diverged"})
            );
            return Ok(Value::Null);
        }
        log.work(job, context)
    };
    let run = || {
        run(
            &plan,
            &store,
            &options(1),
            &stage,
            &Silent,
            &Stop::default(),
        )
        .unwrap()
    };
    let outcome = run();
    assert!(outcome.complete() && outcome.diverged == [1]);
    let artifact = store.find(&plan.jobs[1].fingerprint).unwrap().unwrap();
    assert!(artifact.record.diverged());
    assert_eq!(artifact.record.facts["diverged"]["update"], 12);
    assert_eq!(
        fs::read_to_string(artifact.folder.join("diverged/state")).unwrap(),
        "update 11"
    );
    assert_eq!(
        status::lines(&store, Some(&plan)).unwrap()[1].state,
        status::State::Diverged
    );
    assert_eq!(log.take(), ["a", "c", "d"]);
    assert!(run().complete() && log.take().is_empty());
}

/// Where a reporter's lines can be read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn reporter(&self) -> impl Reporter {
        Lines::new(Box::new(self.clone()))
    }
}

#[test]
fn a_damaged_artifact_is_named_and_made_again() {
    let folder = folder();
    let (store, plan, log) = (store_in(&folder), diamond(), Log::default());
    simply(&plan, &store, &log);
    log.take();
    let text = |number: usize| {
        store
            .find(&plan.jobs[number].fingerprint)
            .unwrap()
            .unwrap()
            .folder
            .join("text")
    };
    let run = |paper: &Paper| {
        let store = Store::open(store.root()).unwrap();
        run(
            &plan,
            &store,
            &options(1),
            &|job, context| log.work(job, context),
            &paper.reporter(),
            &Stop::default(),
        )
        .unwrap()
    };
    // Not needed by anything that is missing, noticed by its time and size.
    damage(&text(1), |bytes| bytes.truncate(1));
    let paper = Paper::default();
    assert!(run(&paper).complete());
    assert_eq!(log.take(), ["b"]);
    let damaged = format!(
        "damaged: {} ({}): text holds 1 of ",
        plan.jobs[1].label,
        plan.jobs[1].fingerprint.short()
    );
    assert!(paper.text().contains(&damaged), "{}", paper.text());
    // Noticed only when read as an input.
    rot(&text(0));
    let selection = Selection {
        names: vec!["pretrain".to_owned()],
        ..Selection::default()
    };
    store.remove(&selection, false).unwrap();
    let finetune = Selection {
        names: vec!["finetune".to_owned()],
        ..Selection::default()
    };
    store.remove(&finetune, false).unwrap();
    let paper = Paper::default();
    assert!(run(&paper).complete());
    assert_eq!(log.take(), ["a", "b", "c", "d"]);
    assert!(
        paper.text().contains("text is not what was written"),
        "{}",
        paper.text()
    );
    assert_eq!(
        fs::read_to_string(text(3)).unwrap(),
        "d pretrain(b corpus(a))"
    );
}

#[test]
fn two_runs_on_one_store_share_the_work() {
    let folder = folder();
    let (plan, log) = (diamond(), Log::default());
    let (root, meeting) = (folder.path().join("store"), Meeting::default());
    let papers = [Paper::default(), Paper::default()];
    let slowly = |job: &Job, context: &Context| {
        std::thread::sleep(Duration::from_millis(50));
        log.work(job, context)
    };
    std::thread::scope(|scope| {
        for paper in &papers {
            scope.spawn(|| {
                let store = Store::open(&root).unwrap();
                meeting.meet(2);
                let outcome = run(
                    &plan,
                    &store,
                    &options(1),
                    &slowly,
                    &paper.reporter(),
                    &Stop::default(),
                )
                .unwrap();
                assert!(outcome.complete());
            });
        }
    });
    let mut ran = log.take();
    ran.sort();
    assert_eq!(ran, ["a", "b", "c", "d"], "each job ran once");
    let text: String = papers.iter().map(Paper::text).collect();
    assert!(
        text.contains("is at it") && text.contains("(by another process)"),
        "{text}"
    );
}

#[test]
fn a_stage_on_a_full_disk_says_what_to_do() {
    let folder = folder();
    let (store, plan) = (store_in(&folder), diamond());
    let stage = |_: &Job, _: &Context| -> Result<Value> {
        Err(
            anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::StorageFull))
                .context("writing tokens.bin"),
        )
    };
    let outcome = run(
        &plan,
        &store,
        &options(1),
        &stage,
        &Silent,
        &Stop::default(),
    )
    .unwrap();
    let text = format!("{:#}", outcome.failed[0].1);
    assert!(
        text.contains("no space is left")
            && text.contains("tokens.bin")
            && text.contains("xlt store"),
        "{text}"
    );
}

#[test]
fn running_work_is_seen_from_another_terminal() {
    let folder = folder();
    let store = store_in(&folder);
    let plan = Plan {
        jobs: vec![job("pretrain", json!("a"), &[])],
        ..Plan::default()
    };
    let stage = |_: &Job, context: &Context| {
        context.progress.begin(40, 0, "updates");
        let other = Store::open(store.root())?;
        let mut out = Vec::new();
        status::print(&other, None, false, &mut out)?;
        let text = String::from_utf8(out)?;
        assert!(
            text.starts_with("running") && text.contains("0 of 40 updates (0 %)"),
            "{text}"
        );
        Ok(Value::Null)
    };
    let outcome = run(
        &plan,
        &store,
        &options(1),
        &stage,
        &Silent,
        &Stop::default(),
    )
    .unwrap();
    assert!(outcome.complete(), "{outcome:?}");
}

#[test]
fn a_plan_with_a_missing_input_or_a_job_twice_is_refused() {
    let folder = folder();
    let (store, log) = (store_in(&folder), Log::default());
    let mut twice = diamond();
    twice.jobs.push(twice.jobs[0].clone());
    let mut headless = diamond();
    headless.jobs.remove(0);
    for plan in [twice, headless] {
        let stage = |job: &Job, context: &Context| log.work(job, context);
        assert!(
            run(
                &plan,
                &store,
                &options(1),
                &stage,
                &Silent,
                &Stop::default()
            )
            .is_err()
        );
    }
    assert_eq!(
        log.take(),
        BTreeMap::<String, ()>::new()
            .into_keys()
            .collect::<Vec<_>>()
    );
}
