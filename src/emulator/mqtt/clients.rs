//! The connected clients, and how many connections there may be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::limits::max_connections;

/// The connected clients.
pub(crate) struct Clients {
    places: Arc<Semaphore>,
    connected: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
    /// Each client's newest connection.
    newest: HashMap<String, Connection>,
    /// The number of the last connection.
    last: u64,
}

struct Connection {
    number: u64,
    /// Dropped when a newer connection takes over.
    _taken_over: oneshot::Sender<()>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(max_connections())), connected: Mutex::default() }
    }

    /// Returns a place for a connection, which is free again when it is dropped. `None` if there are too many.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Adds a client. An older connection of the same client ends.
    pub(super) fn enter(&self, client: String) -> Presence<'_> {
        let (sender, taken_over) = oneshot::channel();
        let mut connected = self.connected();
        connected.last += 1;
        let number = connected.last;
        connected.newest.insert(client.clone(), Connection { number, _taken_over: sender });
        Presence { clients: self, client, number, taken_over }
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        // Each change is one step, so that the map is consistent even if a holder of the lock panicked.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The presence of a client. It ends when this is dropped.
pub(super) struct Presence<'a> {
    clients: &'a Clients,
    client: String,
    number: u64,
    taken_over: oneshot::Receiver<()>,
}

impl Presence<'_> {
    /// Returns when a newer connection of the client takes over.
    pub(super) async fn until_taken_over(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.taken_over).await;
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let mut connected = self.clients.connected();
        if connected.newest.get(&self.client).is_some_and(|newest| newest.number == self.number) {
            connected.newest.remove(&self.client);
        }
    }
}
