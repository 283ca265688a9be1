use std::any::Any;
use std::mem::{forget, transmute};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use crate::Executor;

/// Threads that wait for work, made of `std` alone. The calling thread takes part, so that n threads are n - 1 more.
///
/// ```
/// use kvlane::{Executor, ThreadPool};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// let (pool, sum) = (ThreadPool::new(2), AtomicU32::new(0));
/// pool.parallel_for(10, &|i| { sum.fetch_add(i, Ordering::Relaxed); });
/// assert_eq!(sum.into_inner(), 45);
/// ```
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    caller: Mutex<()>, // held by the call whose tasks are in `shared`
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar, // there are tasks, or the pool ends
    idle: Condvar, // no thread runs a task
}

#[derive(Default)]
struct State {
    task: Option<&'static (dyn Fn(u32) + Sync)>, // its true lifetime is that of the call
    next: u32,
    n_tasks: u32,
    n_running: u32,
    panic: Option<Box<dyn Any + Send>>, // the first one of a task
    is_ending: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("next", &self.next)
            .field("n_tasks", &self.n_tasks)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the next task. Returns whether there was one.
    fn run_next<'a>(&'a self, mut state: MutexGuard<'a, State>) -> bool {
        let i = state.next;
        let task = match state.task {
            Some(task) if i < state.n_tasks => task,
            _ => return false,
        };
        state.next += 1;
        state.n_running += 1;
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(|| task(i)));
        let mut state = self.lock();
        state.n_running -= 1;
        if let Err(panic) = result {
            match state.panic {
                None => state.panic = Some(panic),
                Some(_) => forget(panic), // its drop could panic while other threads run the task
            }
        }
        if state.n_running == 0 {
            self.idle.notify_all();
        }
        true
    }

    fn run_until_end(&self) {
        loop {
            let has_work = |s: &State| s.is_ending || (s.task.is_some() && s.next < s.n_tasks);
            let state =
                self.work.wait_while(self.lock(), |s| !has_work(s)).unwrap_or_else(PoisonError::into_inner);
            if state.is_ending {
                return;
            }
            self.run_next(state);
        }
    }
}

impl ThreadPool {
    /// Starts n_threads - 1 threads.
    ///
    /// # Panics
    /// If n_threads is 0, or the system cannot start a thread.
    pub fn new(n_threads: u32) -> Self {
        assert!(n_threads >= 1, "n_threads is 0; it must be at least 1");
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.run_until_end())
        };
        let threads = (1..n_threads).map(start).collect();
        Self { shared, threads, caller: Mutex::new(()) }
    }
}

impl Executor for ThreadPool {
    fn n_threads(&self) -> u32 {
        self.threads.len() as u32 + 1
    }

    /// Runs the tasks on the calling thread alone if another call is using the pool. A panic of a task goes on here, when
    /// all tasks have ended.
    fn parallel_for(&self, n_tasks: u32, task: &(dyn Fn(u32) + Sync)) {
        let _caller = match self.caller.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..n_tasks).for_each(task),
        };
        // Safety: the reference is removed below, when no thread runs the task and before its lifetime ends.
        let task: &'static (dyn Fn(u32) + Sync) = unsafe { transmute(task) };
        {
            let mut state = self.shared.lock();
            (state.task, state.next, state.n_tasks) = (Some(task), 0, n_tasks);
        }
        self.shared.work.notify_all();
        while self.shared.run_next(self.shared.lock()) {}
        let idle = self.shared.idle.wait_while(self.shared.lock(), |s| s.n_running > 0);
        let mut state = idle.unwrap_or_else(PoisonError::into_inner);
        state.task = None;
        if let Some(panic) = state.panic.take() {
            drop(state);
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().expect("threads of the pool do not panic");
        }
    }
}
