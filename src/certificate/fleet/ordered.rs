//! Work spread over threads whose results are taken in the order the work was given out.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

struct Line<T, E, F> {
    /// The number of the batch that is taken next.
    next: usize,
    done: BTreeMap<usize, Result<T, E>>,
    /// Emptied results, to be filled again.
    spare: Vec<T>,
    /// Absent while a thread is taking.
    take: Option<F>,
    failure: Option<E>,
}

/// Gets batches from `next`, does `work` on them on so many threads, with so many for each thread under way or done before
/// the oldest of them is taken, and hands the results to `take` one after the other
/// in the order of the batches. A result is given back to `work` afterwards, for its memory.
///
/// Each thread both works and takes: there is none that only waits. After the first failure in the order of the batches
/// nothing more is taken.
pub(super) fn in_order<I, T: Default + Send, E: Send>(
    (threads, ahead): (NonZeroUsize, usize),
    next: impl FnMut() -> Result<Option<I>, E> + Send,
    work: impl Fn(I, &mut T) -> Result<(), E> + Sync,
    take: impl FnMut(&mut T) -> Result<(), E> + Send,
) -> Result<(), E> {
    let source = Mutex::new((0, Some(next)));
    let line = Mutex::new(Line { next: 0, done: BTreeMap::new(), spare: Vec::new(), take: Some(take), failure: None });
    let taken = Condvar::new();
    let worker = || {
        loop {
            let (number, item) = {
                let mut source = lock(&source);
                let (given, next) = &mut *source;
                let Some(item) = next.as_mut().and_then(|next| next().transpose()) else {
                    *next = None;
                    return;
                };
                *given += 1;
                (*given - 1, item)
            };
            let mut result = {
                let mut line = taken
                    .wait_while(lock(&line), |line| {
                        number >= line.next.saturating_add(ahead.saturating_mul(threads.get()))
                            && line.failure.is_none()
                    })
                    .unwrap_or_else(PoisonError::into_inner);
                if line.failure.is_some() {
                    return;
                }
                line.spare.pop().unwrap_or_default()
            };
            let done = item.and_then(|item| work(item, &mut result)).map(|()| result);
            let mut guard = lock(&line);
            guard.done.insert(number, done);
            let Some(mut take) = guard.take.take() else { continue };
            while guard.failure.is_none() {
                let number = guard.next;
                let Some(done) = guard.done.remove(&number) else { break };
                drop(guard);
                let outcome = done.and_then(|mut result| take(&mut result).map(|()| result));
                guard = lock(&line);
                guard.next += 1;
                match outcome {
                    Ok(result) => guard.spare.push(result),
                    Err(error) => guard.failure = Some(error),
                }
                taken.notify_all();
            }
            guard.take = Some(take);
            if guard.failure.is_some() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            // Where the system has no more threads, those that there are do the work.
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    match line.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
