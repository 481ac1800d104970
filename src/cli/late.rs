//! Something to say if what comes next takes long.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Says it when its time is up, unless it is dropped before that.
#[derive(Debug)]
pub struct Late {
    cancel: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Late {
    /// Calls `say` after `patience`.
    pub fn new(patience: Duration, say: impl FnOnce() + Send + 'static) -> Self {
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::spawn(move || {
            if cancelled.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                say();
            }
        });
        Self { cancel: Some(cancel), thread: Some(thread) }
    }
}

impl Drop for Late {
    /// What is said after this is not overtaken.
    fn drop(&mut self) {
        self.cancel = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
