//! What the library reports by `tracing`.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Records every event of every crate as text.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<String>>);

/// Listeners that make `tracing` ask all listeners whether they want the events of a place in the code. With only one, it asks
/// that of the thread that reaches the place first: a concurrent test has none, and the place would be silent for all.
static LISTENERS: OnceLock<[Dispatch; 2]> = OnceLock::new();

impl Journal {
    /// Returns what an action reports. It must run on one thread.
    ///
    /// The action runs once before, so that all its places in the code are known when the journal begins.
    pub(crate) async fn record(action: impl AsyncFn()) -> String {
        LISTENERS.get_or_init(|| [Dispatch::new(Self::default()), Dispatch::new(Self::default())]);
        action().await;
        let journal = Self::default();
        let guard = tracing::subscriber::set_default(journal.clone());
        action().await;
        drop(guard);
        journal.0.lock().expect("journal").clone()
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").expect("a text grows");
    }
}

impl Subscriber for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Line(&mut self.0.lock().expect("journal")));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().expect("journal")));
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().expect("journal")));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
