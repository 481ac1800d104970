//! GPT-2's tokens of English text, many times faster than piece by piece.
//!
//! The vocabulary and its merges are those of `tiktoken-rs`. What costs there is the regular
//! expression that cuts text into pieces, and merging each rare piece anew: [`pieces`]
//! cuts by hand, and an [`Encoder`], one a thread, remembers the pieces it has met. On the
//! 25,000 test reviews of aclImdb that takes 0.38 s of one processor, `tiktoken-rs` alone 1.0 s.

mod cleaning;
mod encoder;
mod pieces;

pub use cleaning::without_markup;
pub use encoder::Encoder;
pub use pieces::pieces;
