//! `runs.db` through its public face, and the verbs that read it through the binary.

mod compare;
mod docs;
mod lab;
mod list;
mod names;
mod record;
mod report;
mod speed;
mod sweep;
mod verbs;
