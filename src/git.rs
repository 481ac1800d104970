//! The git checkout that a run starts from, and how it is had again.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use miette::Diagnostic;
use thiserror::Error;

use crate::record::GitState;

/// Patches beyond this are not kept: they hold data, not code.
const LARGEST_PATCH: usize = 16 << 20;

/// Something that `git` does not do.
#[derive(Debug, Error, Diagnostic)]
pub enum GitError {
    /// There is no `git`, or it cannot be talked to.
    #[error("cannot run `git {arguments}`")]
    Run {
        /// What it was asked.
        arguments: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("`git {arguments}` failed: {said}")]
    Refused {
        /// What it was asked.
        arguments: String,
        /// What it said.
        said: String,
    },
    /// The folder is a checkout of something else.
    #[error("`{folder}` has commit {found} checked out, not {wanted}")]
    #[diagnostic(help("name a folder that does not exist yet"))]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
}

/// The commit and the uncommitted changes of the checkout around `root`; `None` where there is
/// no checkout, no commit or no `git`.
pub fn state(root: &Path) -> Option<GitState> {
    if !may_be_in_checkout(root) {
        return None;
    }
    let commit = text(ask(root, &["rev-parse", "HEAD"]).ok()?);
    let mut patch = patch(root).ok()?;
    let is_dirty = !patch.is_empty();
    patch.truncate(if patch.len() > LARGEST_PATCH { 0 } else { patch.len() });
    Some(GitState { commit, is_dirty, patch })
}

/// Whether `git add` would take the file called `name` in `folder`, which it does not know yet.
pub fn would_add(folder: &Path, name: &str) -> bool {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["check-ignore", "--quiet", "--", name]);
    git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It ends with 0 for what is ignored, and with 128 where there is no checkout.
    may_be_in_checkout(folder) && git.status().is_ok_and(|ended| ended.code() == Some(1))
}

/// Whether it makes sense to ask `git`: to start a program takes longer than all the rest of a run without work.
fn may_be_in_checkout(folder: &Path) -> bool {
    let is_checkout = |folder: &Path| folder.join(".git").exists();
    std::env::var_os("GIT_DIR").is_some() || folder.ancestors().any(is_checkout)
}

/// The uncommitted changes, or more than the first [`LARGEST_PATCH`] bytes of them.
fn patch(root: &Path) -> io::Result<Vec<u8>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["diff", "HEAD", "--binary"]);
    // Whatever is configured: `git apply` reads nothing else.
    git.args(["--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "--submodule=short"]);
    git.args(["--src-prefix=a/", "--dst-prefix=b/"]);
    let mut child = git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut patch, said) = (Vec::new(), child.stdout.take().expect("it is piped"));
    said.take(LARGEST_PATCH as u64 + 1).read_to_end(&mut patch)?;
    let is_cut = patch.len() > LARGEST_PATCH;
    if is_cut {
        child.kill()?;
    }
    let ended = child.wait()?;
    if ended.success() || is_cut { Ok(patch) } else { Err(io::Error::other("`git diff` failed")) }
}

/// Checks `commit` of the repository around `root` out into `folder`, with `patch` applied, and returns
/// where the project lies in it.
///
/// A folder that has this commit checked out already is taken as it is: files that git does not track
/// can be put there between two tries.
pub fn check_out(root: &Path, folder: &Path, commit: &str, patch: &[u8]) -> Result<PathBuf, GitError> {
    let below = text(ask(root, &["rev-parse", "--show-prefix"])?);
    if folder.exists() {
        let found = text(ask(folder, &["rev-parse", "HEAD"])?);
        if found != commit {
            return Err(GitError::Other { folder: folder.to_owned(), found, wanted: commit.to_owned() });
        }
    } else {
        // Relative to where the person stands, not to the repository.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        tell(root, &["worktree", "add", "--detach", &folder.display().to_string(), commit], &[])?;
        if !patch.is_empty() {
            tell(&folder, &["apply", "--binary", "-"], patch)?;
        }
    }
    Ok(folder.join(below))
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn ask(root: &Path, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
    tell(root, arguments, &[])
}

/// Runs `git` in `folder` and returns what it prints.
fn tell(folder: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
    let failed = |source| GitError::Run { arguments: arguments.join(" "), source };
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that does not read all of it says why on its own.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GitError::Refused { arguments: arguments.join(" "), said: text(output.stderr) })
}
