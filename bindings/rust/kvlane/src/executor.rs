use std::any::Any;
use std::os::raw::c_void;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Mutex;

use kvlane_sys::{kvl_executor, kvl_task};

/// The caller's threads, on which calls run their tasks. [`ThreadPool`](crate::ThreadPool) is one.
pub trait Executor: Sync {
    /// Returns how many threads run tasks concurrently, 1 to `KVL_MAX_TASKS`: the maximum number of tasks per call.
    fn n_threads(&self) -> u32;

    /// Runs `task(i)` once for every i in `0..n_tasks`, in any order, on any threads, and returns when all are done; the
    /// calling thread may take part. A task takes no lock and uses at most `KVL_TASK_STACK_BYTES` of stack.
    ///
    /// If this panics, the call that it runs panics too, when no task is running any more.
    fn parallel_for(&self, n_tasks: u32, task: &(dyn Fn(u32) + Sync));
}

/// An executor for C, for the duration of a call, and the panic that it must not let through.
struct Pool<'a> {
    executor: &'a dyn Executor,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// C's task.
struct Task {
    function: kvl_task,
    context: *mut c_void,
}

// Safety: tasks may run on any thread, says kvl_parallel_for.
unsafe impl Sync for Task {}

impl Task {
    fn run(&self, i: u32) {
        let function = self.function.expect("a task that is run is not null");
        // Safety: the function and its context are C's. It ignores a task that is out of range, or run again, or late.
        unsafe { function(self.context, i) }
    }
}

unsafe extern "C" fn parallel_for(pool: *mut c_void, n_tasks: u32, function: kvl_task, context: *mut c_void) {
    let pool = &*pool.cast::<Pool<'_>>();
    let task = Task { function, context };
    let run = || pool.executor.parallel_for(n_tasks, &|i| task.run(i));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        *pool.panic.lock().expect("no thread panics with this lock") = Some(panic);
    }
}

/// Makes a C call with an executor, or with null for none. A panic of the executor goes on after the call.
pub(crate) fn with_executor<R>(
    executor: Option<&dyn Executor>,
    call: impl FnOnce(*const kvl_executor) -> R,
) -> R {
    let executor = match executor {
        Some(executor) => executor,
        None => return call(ptr::null()),
    };
    let pool = Pool { executor, panic: Mutex::new(None) };
    let desc = kvl_executor {
        parallel_for: Some(parallel_for),
        pool: &pool as *const Pool<'_> as *mut c_void,
        n_threads: executor.n_threads(),
    };
    let result = call(&desc);
    match pool.panic.into_inner().expect("no thread panics with this lock") {
        None => result,
        Some(panic) => resume_unwind(panic),
    }
}
