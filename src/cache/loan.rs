//! Objects that a stage reads: lent as they are, and looked at when it gives them back.
//!
//! A stage is told where an object lies, and file permissions keep no program from writing there: it
//! can replace the file, and root can write into it. What it has changed shows in the stat of the
//! object, so that whole objects cost a look each and no hashing.
//!
//! Stat afterwards                      | Meaning
//! -------------------------------------|--------------------------------------------------
//! as it was                            | nobody wrote
//! another size or time of write        | somebody wrote, whatever the bytes are by now
//! another inode or time of change      | attributes, links, or a file system that numbers files
//!                                      | anew, as some of networks do: whole if its bytes are right
//!
//! The second line holds since a whole object is never replaced (see [`super::objects::keep`]).

use super::{Cache, CacheError, Damage, objects, stat::Stat};
use crate::digest::Digest;

/// An object as it was when a stage was told where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Loan {
    digest: Digest,
    before: Stat,
}

impl Cache {
    /// Lends a whole object to a stage; `Err` says what is wrong with one that is not whole.
    pub fn lend(&self, digest: Digest) -> Result<Loan, Damage> {
        let before = Stat::of(&self.object(digest)).map_err(|_| Damage::Missing)?;
        match self.flaw(digest) {
            None => Ok(Loan { digest, before }),
            Some(damage) => Err(damage),
        }
    }

    /// Whether somebody wrote to a lent object meanwhile. If its bytes are others by now it is
    /// removed, so that nothing else takes them for what they were.
    pub fn was_written(&self, loan: &Loan) -> Result<bool, CacheError> {
        let path = self.object(loan.digest);
        let Ok(now) = Stat::of(&path) else { return Ok(true) };
        if now == loan.before {
            return Ok(false);
        }
        let is_damaged = self.flaw(loan.digest).is_some();
        if is_damaged {
            self.index.forget_object(loan.digest);
            objects::remove(&path)?;
        }
        Ok(is_damaged || now.was_written_after(&loan.before))
    }
}
