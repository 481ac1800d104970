//! What a command with `sandbox: true` may touch, held by the kernel (Landlock).
//!
//! Reading: its inputs, system folders, and where the programs on `PATH` live. Writing: the folder of
//! its attempt (outputs, metrics, a `TMPDIR` of its own), its checkpoints, and devices such as
//! `/dev/null`. The rules hold for the thread that takes them and for what it starts, for nothing else.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
};

use pipe_stages::contract::Job;
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

/// What every program needs; those that do not exist are passed over.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
];
/// Devices that may be read and written.
const DEVICES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/shm",
    "/dev/dri",
    "/dev/kfd",
];

/// What one command may touch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    /// Where programs and their libraries live, beside [`SYSTEM`].
    programs: BTreeSet<PathBuf>,
    /// The files and folders of the inputs, links followed.
    inputs: BTreeSet<PathBuf>,
    /// What may be written.
    written: Vec<PathBuf>,
    /// The folder for temporary files.
    pub temporary: PathBuf,
    /// The inputs as a person knows them.
    names: Vec<String>,
}

impl Sandbox {
    /// For the command of `job`, run in `root`.
    pub fn new(job: &Job, root: &Path) -> io::Result<Self> {
        let attempt = job.events.parent().expect("the event file lies in the attempt's folder");
        let temporary = attempt.join("tmp");
        fs::create_dir_all(&temporary)?;
        let devices = fs::read_dir("/dev")?.filter_map(Result::ok).map(|entry| entry.path());
        let graphics = devices.filter(|path| path.to_string_lossy().starts_with("/dev/nvidia"));
        Ok(Self {
            programs: programs(root),
            inputs: job.inputs.values().flat_map(|input| with_targets(input)).collect(),
            written: [attempt.to_owned(), job.checkpoint.clone()]
                .into_iter()
                .chain(DEVICES.iter().map(PathBuf::from))
                .chain(graphics)
                .collect(),
            temporary,
            names: job.inputs.iter().map(|(name, path)| shown(name, path, root)).collect(),
        })
    }

    /// Says what was allowed, and how to allow more, for a command that failed.
    pub fn told(&self) -> String {
        let list = |paths: &mut dyn Iterator<Item = String>| paths.collect::<Vec<_>>().join("\n    ");
        let names = self.names.iter().cloned();
        let inputs = if self.names.is_empty() { "no inputs".into() } else { list(&mut names.into_iter()) };
        let programs = list(&mut self.programs.iter().map(|path| path.display().to_string()));
        let system = SYSTEM.iter().filter(|path| Path::new(path).exists()).copied().collect::<Vec<_>>();
        format!(
            "`sandbox: true` was on, so the command could read\n    {inputs}\n    {programs}\n    {}\n  \
             and write its outputs, `{{metrics}}`, `{{checkpoint}}` and `$TMPDIR`;\n  \
             declare what else it reads: `in: {{ NAME: {{ file: PATH }} }}`",
            system.join(" ")
        )
    }

    /// Restricts the calling thread and what it starts.
    #[cfg(target_os = "linux")]
    pub fn enter(&self) -> io::Result<()> {
        use landlock::{
            ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
            RulesetError, path_beneath_rules,
        };
        // The first version that also restricts truncating a file.
        let version = ABI::V3;
        let restricted = || {
            let read = AccessFs::from_read(version);
            let allowed = self.programs.iter().chain(&self.inputs);
            Ruleset::default()
                .set_compatibility(CompatLevel::HardRequirement)
                .handle_access(AccessFs::from_all(version))?
                .create()?
                .add_rules(path_beneath_rules(SYSTEM, read))?
                .add_rules(path_beneath_rules(allowed, read))?
                .add_rules(path_beneath_rules(&self.written, AccessFs::from_all(version)))?
                .restrict_self()
        };
        restricted().map(|_| ()).map_err(|err: RulesetError| {
            io::Error::other(format!(
                "`sandbox: true` needs Landlock of Linux 6.2 or newer, switched on in the kernel: {err}"
            ))
        })
    }

    /// Elsewhere there is no way to keep the promise.
    #[cfg(not(target_os = "linux"))]
    pub fn enter(&self) -> io::Result<()> {
        Err(io::Error::other("`sandbox: true` needs Landlock, which only Linux has"))
    }
}

/// `path`, and what the links in it or below it lead to.
fn with_targets(path: &Path) -> Vec<PathBuf> {
    let below = WalkDir::new(path).into_iter().filter_map(Result::ok);
    let links = below.filter(walkdir::DirEntry::path_is_symlink).map(walkdir::DirEntry::into_path);
    links.filter_map(|link| link.canonicalize().ok()).chain([path.to_owned()]).collect()
}

/// An input as its name and, unless it lies in the cache, its path in the project.
fn shown(name: &str, path: &Path, root: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let is_ours =
        path.components().any(|part| ["objects", "scratch"].iter().any(|own| part.as_os_str() == *own));
    if is_ours { format!("`in.{name}`") } else { format!("`in.{name}` ({})", path.display()) }
}

/// Where the programs on `PATH` and of the active environments live, without `root` itself or what
/// holds it.
fn programs(root: &Path) -> BTreeSet<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let folders: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let mut found: BTreeSet<PathBuf> = folders.iter().cloned().chain(environments).collect();
    found.extend(folders.iter().filter_map(|folder| prefix(folder)));
    // The interpreter of an environment is a link to where its library lies.
    let pythons =
        found.clone().into_iter().flat_map(|folder| ["python3", "bin/python3"].map(|at| folder.join(at)));
    let real = pythons.filter_map(|python| python.canonicalize().ok());
    found.extend(real.filter_map(|python| prefix(python.parent()?)).collect::<Vec<_>>());
    found.extend(home.iter().map(|home| home.join(".rustup")));
    let is_system = |path: &Path| SYSTEM.iter().any(|system| path.starts_with(system));
    found.retain(|path| {
        path.is_dir() && !root.starts_with(path) && Some(path) != home.as_ref() && !is_system(path)
    });
    let all = found.clone();
    found.retain(|path| !path.ancestors().skip(1).any(|above| all.contains(above)));
    found
}

/// The folder above one that holds programs.
fn prefix(folder: &Path) -> Option<PathBuf> {
    let holds_programs = ["bin", "sbin", "shims"].iter().any(|name| folder.ends_with(name));
    holds_programs.then(|| folder.parent().map(Path::to_owned)).flatten()
}
