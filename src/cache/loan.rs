//! Objects that a stage reads: lent as they are, and looked at when it gives them back.
//!
//! A stage is told where an object lies, and file permissions keep no program from writing there: it
//! can replace the file, and root can write into it. What it has changed shows in the stat of the
//! object, so that whole objects cost a look each and no hashing.
//!
//! Stat afterwards                      | Meaning
//! -------------------------------------|--------------------------------------------------
//! as it was                            | nobody wrote
//! another time of change alone         | attributes or links: whole if its bytes are right
//! another inode, size or time of write | somebody wrote, whatever the bytes are by now
//!
//! The last line holds since a whole object is never replaced (see [`super::objects::keep`]).

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
        let now = Stat::of(&path);
        if now.as_ref().is_ok_and(|now| *now == loan.before) {
            return Ok(false);
        }
        let is_damaged = self.flaw(loan.digest) == Some(Damage::Damaged);
        if is_damaged {
            self.index.forget_object(loan.digest);
            objects::remove(&path)?;
        }
        Ok(is_damaged || !now.is_ok_and(|now| now.differs_in_time_of_change_alone(&loan.before)))
    }
}
