//! Whether work that may take long is to end early.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag, raised once and for all. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    /// Raises the flag.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
