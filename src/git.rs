//! The state of the git checkout that a run starts from.

use std::{path::Path, process::Command};

use crate::record::GitState;

/// Patches beyond this are not kept: they hold data, not code.
const LARGEST_PATCH: usize = 16 << 20;

/// The commit and the uncommitted changes of the checkout around `root`; `None` where there is
/// no checkout, no commit or no `git`.
pub fn state(root: &Path) -> Option<GitState> {
    // To start a program takes longer than all the rest of a run without work.
    let is_checkout = |folder: &Path| folder.join(".git").exists();
    if std::env::var_os("GIT_DIR").is_none() && !root.ancestors().any(is_checkout) {
        return None;
    }
    let commit = String::from_utf8(git(root, &["rev-parse", "HEAD"])?).ok()?.trim().to_owned();
    let mut patch = git(root, &["diff", "HEAD", "--binary"])?;
    patch.truncate(if patch.len() > LARGEST_PATCH { 0 } else { patch.len() });
    Some(GitState { commit, patch })
}

fn git(root: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}
