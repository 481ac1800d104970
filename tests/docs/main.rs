//! `docs/` says what the program does: pages made from the code are current.
//!
//! `PIPE_DOCS=write` writes the pages anew instead of comparing.

mod page;
mod reference;
