//! How a run is watched: as lines, on a terminal, by a program.

#[path = "../lab/mod.rs"]
mod lab;

mod events;
mod failing;
mod first_word;
mod terminal;
mod unheard;
