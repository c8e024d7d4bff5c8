//! Threads that sleep between steps and share a step's tasks.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A fixed number of threads, the caller of [`Pool::each`] among them.
pub struct Pool {
    shared: Arc<Shared>,
    /// One job at a time.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    start: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    generation: u64,
    job: Option<Job>,
    working: usize,
    panicked: bool,
    stop: bool,
}

/// The job of the current generation, its lifetime erased: `each` returns only after every worker has left it.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));

// Safety: the pointee is `Sync` and outlives its use, see `Job`.
unsafe impl Send for Job {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts `threads - 1` workers; none for one thread.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            start: Condvar::new(),
            done: Condvar::new(),
        });
        // A thread that cannot be started leaves the pool smaller: results do not depend on its size.
        let workers = (1..threads.max(1))
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("trunk-{index}"))
                    .spawn(move || work(&shared))
                    .ok()
            })
            .collect();
        Pool {
            shared,
            turn: Mutex::new(()),
            workers,
        }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(0) .. task(count - 1)`, each once; lower numbers are started first. Must not be called from a task.
    pub fn each(&self, count: usize, task: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || count < 2 {
            (0..count).for_each(task);
            return;
        }
        let next = AtomicUsize::new(0);
        let job = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                task(index);
            }
        };
        let _turn = lock(&self.turn);
        let job: &(dyn Fn() + Sync) = &job;
        // Safety: only the lifetime changes; the job is dropped after all workers have left it (below).
        let erased = Job(unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(
                job,
            )
        });
        {
            let mut state = lock(&self.shared.state);
            state.generation += 1;
            state.job = Some(erased);
            state.working = self.workers.len();
            state.panicked = false;
        }
        self.shared.start.notify_all();
        let own = catch_unwind(AssertUnwindSafe(job));
        let mut state = lock(&self.shared.state);
        while state.working > 0 {
            state = self
                .shared
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        let panicked = state.panicked;
        drop(state);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a task of the pool panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.start.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so that joining cannot fail.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    loop {
        let job = {
            let mut state = lock(&shared.state);
            loop {
                if state.stop {
                    return;
                }
                if let Some(job) = state.job
                    && state.generation != seen
                {
                    seen = state.generation;
                    break job;
                }
                state = shared
                    .start
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        };
        // Safety: `each` waits for `working` to reach zero before the job goes out of scope.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.0)() }));
        let mut state = lock(&shared.state);
        state.panicked |= result.is_err();
        state.working -= 1;
        if state.working == 0 {
            shared.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_task_runs_once_and_panics_reach_the_caller() {
        let pool = Pool::new(3);
        for count in [0, 1, 2, 100] {
            let sum = AtomicU64::new(0);
            pool.each(count, |index| {
                sum.fetch_add(index as u64 + 1, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), (count * (count + 1) / 2) as u64);
        }
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.each(10, |index| assert!(index != 5, "boom"));
        }));
        assert!(caught.is_err());
        pool.each(4, |_| {});
    }
}
