//! Answers that several read: who asks the same joins the generation that runs, and what its client left can be read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::about::About;
use super::error::Error;
use crate::cache::key::Key;
use crate::cache::recording::Reader;
use crate::cache::singleflight::{Flight, Flights, Joined};
use crate::domain::waiting::Waiting;

/// Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    flights: Flights<Arc<Error>>,
    notes: Arc<Mutex<HashMap<Key, Note>>>,
}

/// What goes with the events of a generation that several read.
#[derive(Clone)]
pub struct Note {
    /// Set before the first event.
    pub about: Arc<OnceLock<Arc<About>>>,
    /// Where it stands while it waits for its turn.
    pub news: watch::Receiver<Option<Waiting>>,
}

/// What became of a request that may share.
pub enum Share {
    Lead {
        flight: Flight<Arc<Error>>,
        events: Reader<Arc<Error>>,
        note: Note,
        place: NotePlace,
    },
    Follow {
        events: Reader<Arc<Error>>,
        note: Note,
    },
    /// As many as allowed are shared already.
    Alone,
}

impl Shares {
    pub fn new(flights: Flights<Arc<Error>>) -> Self {
        Self { flights, notes: Arc::default() }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<Key, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the generation with this key, or leads one whose news are these.
    pub fn join(&self, key: Key, news: &watch::Receiver<Option<Waiting>>) -> Share {
        // Both under one lock: who follows must find the note of the one who leads.
        let mut notes = self.notes();
        match self.flights.join(key) {
            Joined::Alone => Share::Alone,
            Joined::Follow(events) => match notes.get(&key) {
                Some(note) => Share::Follow { events, note: note.clone() },
                None => Share::Alone,
            },
            Joined::Lead(leader) => {
                let note = Note { about: Arc::default(), news: news.clone() };
                notes.insert(key, note.clone());
                let place = NotePlace { shares: self.clone(), key, about: Arc::clone(&note.about) };
                Share::Lead { flight: leader.flight, events: leader.reader, note, place }
            }
        }
    }
}

/// The place of a note; dropped when the generation can no longer be joined.
pub struct NotePlace {
    shares: Shares,
    key: Key,
    about: Arc<OnceLock<Arc<About>>>,
}

impl Drop for NotePlace {
    fn drop(&mut self) {
        let mut notes = self.shares.notes();
        if notes.get(&self.key).is_some_and(|note| Arc::ptr_eq(&note.about, &self.about)) {
            notes.remove(&self.key);
        }
    }
}
