//! The inputs from the cache that a stage reads, and whether they are still what they were.

use crate::{
    cache::{Cache, CacheError, Damage, Loan},
    digest::Digest,
};

/// What a stage must know of the ways out once one of its inputs was written to.
const HELP: &str = "the stage, or one that ran beside it, wrote to it: let that one change a copy, \
                    or write to an output; `sandbox: true` of kind `shell` prevents it";

/// Objects that a stage reads, each under the name of an input.
#[derive(Debug)]
pub(super) struct Loans(Vec<(String, Loan)>);

/// An input that is not whole; the stage cannot start.
#[derive(Debug)]
pub(super) struct Flawed {
    pub port: String,
    pub damage: Damage,
}

impl Loans {
    /// Lends `objects`, each under the name of an input.
    pub fn of(objects: &[(String, Digest)], cache: &Cache) -> Result<Self, Flawed> {
        let lend = |(port, digest): &(String, Digest)| match cache.lend(*digest) {
            Ok(loan) => Ok((port.clone(), loan)),
            Err(damage) => Err(Flawed { port: port.clone(), damage }),
        };
        let loans = objects.iter().map(lend).collect::<Result<_, _>>();
        cache.end_lookups();
        loans.map(Self)
    }

    /// The inputs that somebody wrote to meanwhile. What is damaged by it is in the cache no more.
    pub fn written(&self, cache: &Cache) -> Result<Vec<&str>, CacheError> {
        let mut written = Vec::new();
        for (port, loan) in &self.0 {
            // Each is looked at: all that are damaged have to go.
            if cache.was_written(loan)? {
                written.push(port.as_str());
            }
        }
        Ok(written)
    }
}

/// What is wrong with a stage whose inputs `written`, such as `` `x` (`data.o`) ``, somebody wrote to.
pub(super) fn told(written: &[String]) -> String {
    let (inputs, were) = if written.len() == 1 { ("input", "was") } else { ("inputs", "were") };
    let names = written.join(", ");
    format!(
        "{inputs} {names} {were} changed in the cache while the stage ran, so its result was not kept\nhelp: {HELP}"
    )
}
