//! `docs/` says what the program does: pages made from the code are current, and every command shown
//! is run and prints what is shown.
//!
//! `PIPE_DOCS=write` writes the pages anew instead of comparing; read the difference before keeping it.

#[path = "../lab/mod.rs"]
mod lab;

mod compared;
mod links;
mod page;
mod reference;
mod transcript;
mod walks;
