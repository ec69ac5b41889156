//! What the library reports by `tracing`.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Records every event of every crate as text.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<String>>);

impl Journal {
    /// Returns what an action reports. It must run on one thread.
    ///
    /// The action runs once before, because a place in the code that a concurrent test is the first to reach may be taken
    /// for one that nobody listens to. Setting a subscriber corrects that for the places that are known then.
    pub(crate) async fn record(action: impl AsyncFn()) -> String {
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
