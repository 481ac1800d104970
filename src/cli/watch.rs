//! Waits until something that a pipeline is made of changes.
//!
//! The system says when to look, a snapshot says whether something has changed: so nothing that
//! happens while a run goes on is missed, and reading a file is no change of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use walkdir::WalkDir;

use super::Failure;
use crate::{pattern::matching_files, pipeline::Source};

/// For how long nothing may happen until a change counts as complete.
const QUIET: Duration = Duration::from_millis(100);

/// What wakes those who wait.
pub enum Wake {
    /// Something happened to these paths.
    Touched(Vec<PathBuf>),
    /// Waiting is over: Ctrl-C.
    Stop,
}

/// Why waiting is over.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited {
    /// These files have changed, appeared or gone.
    Changed(Vec<PathBuf>),
    /// Ctrl-C.
    Stopped,
}

/// Files, folders and patterns that are watched, and how they looked last.
pub struct Watch {
    watcher: RecommendedWatcher,
    wakes: Receiver<Wake>,
    watched: BTreeMap<PathBuf, RecursiveMode>,
    file: PathBuf,
    root: PathBuf,
    sources: BTreeSet<Source>,
    seen: Snapshot,
}

/// What tells one state of a file from another.
type Look = (u64, i64, i64, i64, i64, u64);
type Snapshot = BTreeMap<PathBuf, Look>;

impl Watch {
    /// Watches the pipeline `file` alone. What is sent through the channel that is given back
    /// wakes those who wait.
    pub fn new(file: &Path) -> Result<(Self, Sender<Wake>), Failure> {
        let (sender, wakes) = mpsc::channel();
        let wake = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error, such as more events than the system can hold, is a reason to look, too.
            let paths = match event {
                Ok(event) if event.kind.is_access() && !event.need_rescan() => return,
                Ok(event) => event.paths,
                Err(err) => err.paths,
            };
            let _ = wake.send(Wake::Touched(paths));
        });
        let file = std::path::absolute(file).map_err(Failure::error)?;
        let mut watch = Self {
            watcher: watcher.map_err(unwatchable)?,
            wakes,
            watched: BTreeMap::new(),
            root: PathBuf::new(),
            sources: BTreeSet::new(),
            seen: Snapshot::new(),
            file,
        };
        watch.look_from_now_on()?;
        Ok((watch, sender))
    }

    /// How many files, folders and patterns are watched, the pipeline file among them.
    pub fn len(&self) -> usize {
        self.sources.len() + 1
    }

    /// Notes how everything looks now, before it is read: what differs later is a change.
    pub fn look_from_now_on(&mut self) -> Result<(), Failure> {
        self.subscribe()?;
        self.seen = self.snapshot();
        Ok(())
    }

    /// Watches `sources` below `root` beside the file, from now on.
    pub fn sources(&mut self, root: &Path, sources: BTreeSet<Source>) -> Result<(), Failure> {
        // The pipeline file was read already: how it looked before that is what counts.
        let file = self.seen.get(&self.file).copied();
        root.clone_into(&mut self.root);
        self.sources = sources;
        self.look_from_now_on()?;
        self.seen.remove(&self.file);
        self.seen.extend(file.map(|look| (self.file.clone(), look)));
        Ok(())
    }

    /// Waits until something differs from when it was looked at last, and has come to rest.
    pub fn wait(&mut self) -> Result<Waited, Failure> {
        loop {
            if !self.changed().is_empty() {
                if self.rest() == Waited::Stopped {
                    return Ok(Waited::Stopped);
                }
                let changed = self.changed();
                if !changed.is_empty() {
                    return Ok(Waited::Changed(changed));
                }
            }
            loop {
                match self.wakes.recv() {
                    Ok(Wake::Stop) | Err(_) => return Ok(Waited::Stopped),
                    Ok(Wake::Touched(paths)) if self.concerns(&paths) => break,
                    Ok(Wake::Touched(_)) => {}
                }
            }
            // A folder that was missing may be there now.
            self.subscribe()?;
        }
    }

    /// Waits until nothing has happened for a while.
    fn rest(&self) -> Waited {
        loop {
            match self.wakes.recv_timeout(QUIET) {
                Ok(Wake::Touched(_)) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Waited::Stopped,
                Err(RecvTimeoutError::Timeout) => return Waited::Changed(Vec::new()),
            }
        }
    }

    /// Whether something watched lies at, below or above one of these paths.
    fn concerns(&self, paths: &[PathBuf]) -> bool {
        let places = self.places();
        paths.is_empty()
            || paths.iter().any(|path| {
                places.iter().any(|(place, _)| place.starts_with(path) || path.starts_with(place))
            })
    }

    fn changed(&self) -> Vec<PathBuf> {
        let now = self.snapshot();
        let differs = |path: &&PathBuf| self.seen.get(*path) != now.get(*path);
        let all: BTreeSet<&PathBuf> = self.seen.keys().chain(now.keys()).collect();
        all.into_iter().filter(differs).cloned().collect()
    }

    /// The files and folders that are watched, and whether with all below them.
    fn places(&self) -> Vec<(PathBuf, bool)> {
        let below = |source: &Source| match source {
            Source::File(path) => Some((self.root.join(path), false)),
            Source::Dir(path) => Some((self.root.join(path), true)),
            Source::Glob(pattern) => Some((self.root.join(fixed_part(pattern)), true)),
            Source::Output { .. } => None,
        };
        let mut places = vec![(self.file.clone(), false)];
        places.extend(self.sources.iter().filter_map(below));
        // Of a link, also what it points to.
        let targets: Vec<_> = places
            .iter()
            .filter_map(|(path, is_deep)| Some((fs::canonicalize(path).ok()?, *is_deep)))
            .filter(|target| !places.contains(target))
            .collect();
        places.extend(targets);
        places
    }

    /// Asks the system to tell of every place. A file is watched through its folder, so that
    /// one that is replaced by renaming stays watched; what is missing, through what is there.
    fn subscribe(&mut self) -> Result<(), Failure> {
        let mut wanted: BTreeMap<PathBuf, RecursiveMode> = BTreeMap::new();
        for (place, is_deep) in self.places() {
            if is_deep && place.is_dir() {
                wanted.insert(place.clone(), RecursiveMode::Recursive);
            }
            let above = place.ancestors().skip(1).find(|folder| folder.is_dir());
            if let Some(folder) = above {
                wanted.entry(folder.to_owned()).or_insert(RecursiveMode::NonRecursive);
            }
        }
        for folder in self.watched.keys().filter(|folder| !wanted.contains_key(*folder)) {
            // It may have gone already, and its watch with it.
            let _ = self.watcher.unwatch(folder);
        }
        for (folder, mode) in &wanted {
            // A folder that was removed and made anew has to be watched anew.
            let _ = self.watcher.unwatch(folder);
            self.watcher.watch(folder, *mode).map_err(unwatchable)?;
        }
        self.watched = wanted;
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let mut files = BTreeSet::from([self.file.clone()]);
        for source in &self.sources {
            match source {
                Source::File(path) => {
                    files.insert(self.root.join(path));
                }
                Source::Dir(path) => {
                    let entries = WalkDir::new(self.root.join(path)).into_iter().filter_map(Result::ok);
                    let found = entries.filter(|entry| !entry.file_type().is_dir());
                    files.extend(found.map(walkdir::DirEntry::into_path));
                }
                Source::Glob(pattern) => {
                    let found = matching_files(&self.root, pattern).unwrap_or_default();
                    files.extend(found.iter().map(|path| self.root.join(path)));
                }
                Source::Output { .. } => {}
            }
        }
        // A folder that holds the project holds what a run writes, too.
        let own = [self.root.join("cache"), self.root.join("runs.db")];
        let is_own = |file: &PathBuf| {
            file.starts_with(&own[0])
                || file.as_os_str().as_encoded_bytes().starts_with(own[1].as_os_str().as_encoded_bytes())
        };
        files.retain(|file| !is_own(file));
        files.into_iter().filter_map(|file| look(&file).map(|look| (file, look))).collect()
    }
}

fn look(file: &Path) -> Option<Look> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec(), meta.ino()))
}

/// The folders that a pattern begins with.
fn fixed_part(pattern: &str) -> PathBuf {
    let parts = Path::new(pattern).components();
    let is_fixed = |part: &std::path::Component<'_>| {
        !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\'])
    };
    let folders: PathBuf = parts.take_while(is_fixed).collect();
    // A pattern without special characters is one file.
    if folders == Path::new(pattern) { folders.parent().unwrap_or(&folders).to_owned() } else { folders }
}

fn unwatchable(err: notify::Error) -> Failure {
    Failure::error(err).help("on Linux, `sysctl fs.inotify.max_user_watches` bounds what can be watched")
}
