//! Executors: results have the same bits with any of them, and their panics reach the caller.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use kvlane::*;

mod common;
use common::random;

const N_TOKENS: usize = 3000;

/// Starts threads for each call.
struct Scoped(u32);

impl Executor for Scoped {
    fn n_threads(&self) -> u32 {
        self.0
    }

    fn parallel_for(&self, n_tasks: u32, task: &(dyn Fn(u32) + Sync)) {
        thread::scope(|scope| (0..n_tasks).for_each(|i| drop(scope.spawn(move || task(i)))));
    }
}

/// Does something else in place of running the tasks.
struct Instead<F: Fn(u32, &(dyn Fn(u32) + Sync)) + Sync>(F);

impl<F: Fn(u32, &(dyn Fn(u32) + Sync)) + Sync> Executor for Instead<F> {
    fn n_threads(&self) -> u32 {
        2
    }

    fn parallel_for(&self, n_tasks: u32, task: &(dyn Fn(u32) + Sync)) {
        self.0(n_tasks, task);
    }
}

fn cache() -> Cache {
    let mut cache = Cache::new(1, &Layer::new(2, 64), N_TOKENS).unwrap();
    cache.append(0, &random(N_TOKENS * 128, 1), &random(N_TOKENS * 128, 2)).unwrap();
    cache
}

/// One call on an executor.
fn attend(cache: &Cache, attention: &Attention, executor: Option<&dyn Executor>) -> Result<Vec<f32>> {
    let (view, q, mut out) = (cache.view(0)?, random(8 * 64, 3), vec![0.0; 8 * 64]);
    let n_threads = executor.map_or(1, |executor| executor.n_threads());
    let mut workspace = attention.workspace(1, N_TOKENS, 1, n_threads)?;
    attention.attend(&mut [Sequence::new(&view, &q, &mut out)], &mut workspace, executor)?;
    Ok(out)
}

#[test]
fn all_executors_give_the_same_bits() {
    let cache = cache();
    let attention = Attention::new(&Geometry::of(&cache, 0, 8).unwrap()).unwrap();
    let expected = attend(&cache, &attention, None).unwrap();
    for n_threads in [1, 2, 5] {
        let pool = ThreadPool::new(n_threads);
        for _ in 0..20 {
            assert_eq!(attend(&cache, &attention, Some(&pool)).unwrap(), expected);
        }
        assert_eq!(attend(&cache, &attention, Some(&Scoped(n_threads))).unwrap(), expected);
    }
    let reversed = Instead(|n, task| (0..n).rev().for_each(task));
    assert_eq!(attend(&cache, &attention, Some(&reversed)).unwrap(), expected);
    let too_often = Instead(|n, task| (0..n + 1).chain(0..n).for_each(task));
    assert_eq!(attend(&cache, &attention, Some(&too_often)).unwrap(), expected);
}

#[test]
fn a_pool_serves_several_callers() {
    let cache = cache();
    let attention = Attention::new(&Geometry::of(&cache, 0, 8).unwrap()).unwrap();
    let (expected, pool) = (attend(&cache, &attention, None).unwrap(), ThreadPool::new(3));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(attend(&cache, &attention, Some(&pool)).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn an_executor_that_runs_no_task_is_an_error() {
    let cache = cache();
    let attention = Attention::new(&Geometry::of(&cache, 0, 8).unwrap()).unwrap();
    let error = attend(&cache, &attention, Some(&Instead(|_, _| ()))).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_TASK);
    let error = attend(&cache, &attention, Some(&Scoped(0))).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_RANGE);
}

#[test]
fn a_panic_of_an_executor_reaches_the_caller() {
    let cache = cache();
    let attention = Attention::new(&Geometry::of(&cache, 0, 8).unwrap()).unwrap();
    let panics = Instead(|_, _| panic!("no threads today"));
    let result = catch_unwind(AssertUnwindSafe(|| attend(&cache, &attention, Some(&panics))));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"no threads today"));
    attend(&cache, &attention, None).unwrap();
}

#[test]
fn a_pool_runs_each_task_once_and_within_tasks() {
    let pool = ThreadPool::new(3);
    let counts: Vec<_> = (0..100).map(|_| AtomicU32::new(0)).collect();
    pool.parallel_for(10, &|i| {
        pool.parallel_for(10, &|j| {
            counts[(i * 10 + j) as usize].fetch_add(1, Ordering::Relaxed);
        });
    });
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    pool.parallel_for(0, &|_| unreachable!());
}

#[test]
fn a_panic_of_a_task_reaches_the_caller_when_all_have_ended() {
    let pool = ThreadPool::new(2);
    let n_ended = AtomicU32::new(0);
    let run = |i| {
        if i == 3 {
            panic!("task {i}");
        }
        n_ended.fetch_add(1, Ordering::Relaxed);
    };
    let result = catch_unwind(AssertUnwindSafe(|| pool.parallel_for(20, &run)));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"task 3".to_string()));
    assert_eq!(n_ended.into_inner(), 19);
    pool.parallel_for(20, &|_| ());
}

#[test]
fn a_call_whose_tasks_the_caller_runs() {
    let cache = cache();
    let attention = Attention::new(&Geometry::of(&cache, 0, 8).unwrap()).unwrap();
    let expected = attend(&cache, &attention, None).unwrap();
    let (view, q, mut out) = (cache.view(0).unwrap(), random(8 * 64, 3), vec![0.0; 8 * 64]);
    let mut workspace = attention.workspace(1, N_TOKENS, 1, 4).unwrap();
    let mut sequences = [Sequence::new(&view, &q, &mut out)];
    let call = attention.begin(&mut sequences, &mut workspace, 4).unwrap();
    assert_eq!(call.run_task(call.n_tasks()).unwrap_err().status(), sys::KVL_ERROR_TASK);
    assert_eq!(call.finish().unwrap_err().status(), sys::KVL_ERROR_TASK);
    let call = attention.begin(&mut sequences, &mut workspace, 4).unwrap();
    thread::scope(|scope| {
        let call = &call;
        (0..call.n_tasks()).for_each(|i| drop(scope.spawn(move || call.run_task(i).unwrap())));
    });
    assert_eq!(call.run_task(0).unwrap_err().status(), sys::KVL_ERROR_TASK);
    call.finish().unwrap();
    assert_eq!(out, expected);
}

#[test]
fn objects_may_be_sent_and_shared() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Cache>();
    is_send_and_sync::<View>();
    is_send_and_sync::<TilePool>();
    is_send_and_sync::<Attention>();
    is_send_and_sync::<Sequence>();
    is_send_and_sync::<Partial>();
    is_send_and_sync::<Workspace>();
    is_send_and_sync::<Call>();
    is_send_and_sync::<Plan>();
    is_send_and_sync::<ThreadPool>();
}
