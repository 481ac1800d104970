//! What predictions are worth: pure figures, and the tables that show them.
//!
//! A positive review that is called positive is a true positive (`tp`); `fp`, `fn` and `tn`
//! follow. A ratio of 0/0 is undefined, never 0.

mod bins;
mod bootstrap;
mod counts;
mod pairs;
mod ranking;
mod summary;
mod tables;

pub use bins::Bins;
pub use bootstrap::bootstrap_interval;
pub use counts::{Counts, wilson_interval};
pub use pairs::{Paired, mcnemar_exact};
pub use ranking::area_under_curve;
pub use summary::{BinSummary, Summary, decide};
pub use tables::{bins_table, overall_table};
