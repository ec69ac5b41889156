//! Parallel work whose results are taken in the order of its input.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// The number of threads, and how many batches each may have in progress or done before the oldest is taken.
#[derive(Clone, Copy)]
pub(in crate::certificate) struct Parallelism {
    pub(in crate::certificate) threads: NonZeroUsize,
    pub(in crate::certificate) ahead: usize,
}

impl Parallelism {
    fn window(self) -> usize {
        self.ahead.saturating_mul(self.threads.get())
    }
}

/// Gets batches from `next`, processes them with `work` on several threads, and passes the results to `take`, one after
/// the other in the order of the batches. `work` gets emptied results back, to reuse their memory.
///
/// Every thread both works and takes: no thread only waits. Nothing is taken after the first error in the order of the
/// batches, which is returned.
pub(in crate::certificate) fn in_order<I, T: Default + Send, E: Send>(
    parallelism: Parallelism,
    next: impl FnMut() -> Result<Option<I>, E> + Send,
    work: impl Fn(I, &mut T) -> Result<(), E> + Sync,
    take: impl FnMut(&mut T) -> Result<(), E> + Send,
) -> Result<(), E> {
    let source = Mutex::new(Source { count: 0, next: Some(next) });
    let results = Results {
        state: Mutex::new(State { next: 0, done: BTreeMap::new(), spare: Vec::new(), take: Some(take), failure: None }),
        taken: Condvar::new(),
        window: parallelism.window(),
    };
    let worker = || {
        loop {
            // A statement of its own, so that the lock is released before the work begins.
            let batch = lock(&source).next_batch();
            let Some((number, item)) = batch else { return };
            let Some(mut result) = results.reserve(number) else { return };
            let done = item.and_then(|item| work(item, &mut result)).map(|()| result);
            if !results.add(number, done) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..parallelism.threads.get() {
            // If the system has no more threads, the existing ones do the work.
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    match results.state.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The source of the batches.
struct Source<N> {
    /// The number of batches so far.
    count: usize,
    /// `None` at the end.
    next: Option<N>,
}

impl<N> Source<N> {
    /// Returns the next batch and its number.
    fn next_batch<I, E>(&mut self) -> Option<(usize, Result<I, E>)>
    where
        N: FnMut() -> Result<Option<I>, E>,
    {
        let Some(item) = self.next.as_mut().and_then(|next| next().transpose()) else {
            self.next = None;
            return None;
        };
        self.count += 1;
        Some((self.count - 1, item))
    }
}

/// The results that are not taken yet.
struct Results<T, E, F> {
    state: Mutex<State<T, E, F>>,
    /// Notified when a result is taken.
    taken: Condvar,
    /// How many batches may be in progress or done.
    window: usize,
}

struct State<T, E, F> {
    /// The number of the batch that is taken next.
    next: usize,
    done: BTreeMap<usize, Result<T, E>>,
    /// Taken results, for reuse.
    spare: Vec<T>,
    /// `None` while a thread takes results.
    take: Option<F>,
    failure: Option<E>,
}

impl<T: Default, E, F: FnMut(&mut T) -> Result<(), E>> Results<T, E, F> {
    /// Waits until a batch may be processed, and returns the memory for its result. `None` after a failure.
    fn reserve(&self, number: usize) -> Option<T> {
        let must_wait =
            |state: &mut State<T, E, F>| number >= state.next.saturating_add(self.window) && state.failure.is_none();
        let mut state = self.taken.wait_while(lock(&self.state), must_wait).unwrap_or_else(PoisonError::into_inner);
        state.failure.is_none().then(|| state.spare.pop().unwrap_or_default())
    }

    /// Adds a result, and takes all results that are next in order, unless another thread does. Returns whether to go on.
    fn add(&self, number: usize, result: Result<T, E>) -> bool {
        let mut state = lock(&self.state);
        state.done.insert(number, result);
        let Some(mut take) = state.take.take() else { return true };
        while state.failure.is_none() {
            let number = state.next;
            let Some(done) = state.done.remove(&number) else { break };
            drop(state);
            let outcome = done.and_then(|mut result| take(&mut result).map(|()| result));
            state = lock(&self.state);
            state.next += 1;
            match outcome {
                Ok(result) => state.spare.push(result),
                Err(error) => state.failure = Some(error),
            }
            self.taken.notify_all();
        }
        state.take = Some(take);
        state.failure.is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_work_on_batches_at_the_same_time() {
        let threads = NonZeroUsize::new(3).expect("not zero");
        let (mut left, working, changed) = (threads.get(), Mutex::new(0), Condvar::new());
        in_order(
            Parallelism { threads, ahead: 1 },
            || {
                left = left.saturating_sub(1);
                Ok((left > 0).then_some(()))
            },
            |(), (): &mut ()| {
                *lock(&working) += 1;
                changed.notify_all();
                let wait = changed.wait_timeout_while(lock(&working), Duration::from_secs(20), |count| *count < 2);
                if wait.expect("no panic").1.timed_out() { Err("the other batch did not begin") } else { Ok(()) }
            },
            |()| Ok(()),
        )
        .expect("two batches at once");
    }
}
