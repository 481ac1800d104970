//! GPT-2's tokens of English text, many times faster than piece by piece.
//!
//! The vocabulary and its merges are those of `tiktoken-rs`. What costs there is the regular
//! expression that cuts text into pieces, and merging each rare piece anew: [`pieces`]
//! cuts by hand, and an [`Encoder`], one a thread, remembers the pieces it has met.

mod cleaning;
mod encoder;
mod pieces;

pub use cleaning::without_markup;
pub use encoder::Encoder;
pub use pieces::pieces;
