//! What is done to a project that nobody would wish: kills, damage, full and read-only disks.
//! Afterwards the plain command ends with the right bytes or one clear error.

#[path = "../lab/mod.rs"]
mod lab;

mod campaign;
mod damage;
mod medium;
mod worker;
