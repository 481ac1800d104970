//! Files and folders outside the cache: what counts as a change, and what is read again.

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pipe::{
    cache::{Cache, CacheError, Outside},
    digest::Digest,
    record::{FileChanges, FileNames},
};
use tempfile::TempDir;

/// A project with a folder `data` of two levels.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.cache().make_writable().unwrap();
        for name in ["data/a.txt", "data/b.txt", "data/deep/c.txt", "data/deep/d.txt", "data/other/e.txt"] {
            lab.write(name, name);
        }
        lab
    }

    fn cache(&self) -> Cache {
        Cache::open(&self.path("cache"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn data(&self) -> Outside {
        self.cache().folder(self.folder.path(), "data".as_ref()).unwrap()
    }

    fn digest(&self) -> Digest {
        self.data().digest
    }

    /// Records that do not vouch for what they were made from, so that files are read again.
    fn doubtful_records(&self) -> i64 {
        let index = rusqlite::Connection::open(self.path("cache/v1/index.db")).unwrap();
        index
            .query_row("SELECT count(*) FROM outside WHERE listing = zeroblob(32)", [], |row| row.get(0))
            .unwrap()
    }
}

type Change = fn(&Lab);

/// Changes that show in the names or contents of `data`.
const EDITS: [(&str, Change); 7] = [
    ("a file with other bytes", |lab| lab.write("data/deep/c.txt", "other")),
    ("a file with other bytes of the same number", |lab| lab.write("data/a.txt", "DATA/a.txt")),
    ("a new file", |lab| lab.write("data/deep/f.txt", "f")),
    ("a new file in a new folder", |lab| lab.write("data/new/f.txt", "f")),
    ("a removed file", |lab| fs::remove_file(lab.path("data/deep/c.txt")).unwrap()),
    ("a renamed file", |lab| fs::rename(lab.path("data/a.txt"), lab.path("data/z.txt")).unwrap()),
    ("a renamed folder", |lab| fs::rename(lab.path("data/deep"), lab.path("data/sea")).unwrap()),
];

/// Changes of `data` that its own folders are not told of.
const FROM_ELSEWHERE: [(&str, Change); 4] = [
    ("a write under another name", |lab| lab.write("same.txt", "written")),
    ("a write to what a link leads to", |lab| lab.write("far.txt", "written")),
    ("a write in a folder that a link leads to", |lab| lab.write("away/g.txt", "written")),
    ("another folder in its place", |lab| {
        fs::rename(lab.path("data"), lab.path("before")).unwrap();
        lab.write("data/a.txt", "data/a.txt");
    }),
];

#[test]
fn a_write_since_a_folder_was_looked_at_is_noticed_and_a_read_is_not() {
    let changes = EDITS.iter().chain(&FROM_ELSEWHERE);
    for (what, change) in changes {
        let lab = Lab::new();
        for name in ["same.txt", "far.txt", "away/g.txt"] {
            lab.write(name, name);
        }
        let is_elsewhere = FROM_ELSEWHERE.iter().any(|(elsewhere, _)| elsewhere == what);
        if is_elsewhere {
            fs::hard_link(lab.path("same.txt"), lab.path("data/same.txt")).unwrap();
            symlink(lab.path("far.txt"), lab.path("data/far.txt")).unwrap();
            symlink(lab.path("away"), lab.path("data/away")).unwrap();
        }
        let (cache, root) = (lab.cache(), lab.folder.path());
        let data = cache.folder(root, "data".as_ref()).unwrap();
        fs::read(lab.path("data/deep/c.txt")).unwrap();
        assert!(!data.has_changed() && !data.has_changed(), "before {what}");
        change(&lab);
        assert!(data.has_changed() && data.has_changed(), "{what}");
    }
}

#[test]
fn what_is_known_by_its_stats_is_told_without_reading_and_nothing_else_is() {
    for (what, change) in &EDITS {
        let lab = Lab::new();
        let root = lab.folder.path();
        let known = |cache: &Cache| {
            [
                cache.known_file(root, "data/a.txt".as_ref()),
                cache.known_folder(root, "data".as_ref()),
                cache.known_glob(root, "data/**/*.txt"),
            ]
        };
        assert_eq!(known(&lab.cache()), [None; 3]);
        let look = |cache: &Cache| {
            let file = cache.file(root, "data/a.txt".as_ref()).ok().map(|outside| outside.digest);
            let folder = cache.folder(root, "data".as_ref()).unwrap().digest;
            [file, Some(folder), Some(cache.glob(root, "data/**/*.txt").unwrap().digest)]
        };
        let before = look(&lab.cache());
        assert_eq!(known(&lab.cache()), before);
        change(&lab);
        let cache = lab.cache();
        let now = known(&cache);
        assert!(now[1].is_none() && now[2].is_none(), "{what}");
        assert_eq!(look(&cache)[1..], look(&lab.cache())[1..], "{what}: goes on from what was listed");
        assert_ne!(look(&lab.cache()), before, "{what}");
    }
}

#[test]
fn every_change_of_names_or_contents_is_seen() {
    for (what, edit) in EDITS {
        let lab = Lab::new();
        let before = lab.data();
        edit(&lab);
        assert!(before.has_changed(), "{what}, while a stage ran");
        assert_ne!(lab.digest(), before.digest, "{what}");
        let elsewhere = Lab::new();
        edit(&elsewhere);
        assert_eq!(lab.digest(), elsewhere.digest(), "{what}: the way there does not matter");
    }
}

#[test]
fn a_file_with_other_bytes_is_seen_behind_an_equal_size_and_a_restored_time() {
    let lab = Lab::new();
    let path = lab.path("data/a.txt");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let before = lab.digest();
    fs::write(&path, "DATA/a.txt").unwrap();
    File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    assert_ne!(lab.digest(), before);
}

#[test]
fn a_touched_file_is_read_once_and_then_known_even_right_after_it_was_written() {
    let lab = Lab::new();
    let before = lab.digest();
    assert_eq!(lab.doubtful_records(), 0, "written a moment ago");
    lab.write("data/deep/c.txt", "data/deep/c.txt");
    assert_eq!(lab.digest(), before);
    assert_eq!(lab.doubtful_records(), 0);
    let file = || lab.cache().file(lab.folder.path(), "data/a.txt".as_ref()).unwrap().digest;
    lab.write("data/a.txt", "data/a.txt");
    assert_eq!(file(), file());
    assert_eq!(lab.doubtful_records(), 0);
}

#[test]
fn a_file_from_the_future_is_never_taken_at_its_stat() {
    let lab = Lab::new();
    let future = std::time::SystemTime::now() + std::time::Duration::from_hours(1);
    let file = File::options().write(true).open(lab.path("data/a.txt")).unwrap();
    file.set_times(FileTimes::new().set_modified(future)).unwrap();
    assert_eq!(lab.digest(), lab.digest());
    assert_eq!(lab.doubtful_records(), 1, "the level that the file is on");
}

#[test]
fn links_are_followed_empty_folders_do_not_count_and_a_loop_is_an_error() {
    let lab = Lab::new();
    let before = lab.digest();
    fs::rename(lab.path("data/deep"), lab.path("deep")).unwrap();
    fs::rename(lab.path("data/a.txt"), lab.path("a.txt")).unwrap();
    symlink(lab.path("deep"), lab.path("data/deep")).unwrap();
    symlink(lab.path("a.txt"), lab.path("data/a.txt")).unwrap();
    fs::create_dir_all(lab.path("data/nothing/at/all")).unwrap();
    assert_eq!(lab.digest(), before);
    let linked = lab.data();
    lab.write("a.txt", "behind the link");
    assert!(linked.has_changed());
    assert_ne!(lab.digest(), before);
    symlink(lab.path("data"), lab.path("data/nothing/at/loop")).unwrap();
    let looked = lab.cache().folder(lab.folder.path(), "data".as_ref());
    assert!(matches!(&looked, Err(CacheError::Loop { path }) if path.ends_with("at/loop")), "{looked:?}");
}

#[test]
fn names_that_are_no_text_are_told_apart() {
    let lab = Lab::new();
    let put = |name: &[u8]| fs::write(lab.path("data").join(OsStr::from_bytes(name)), "x").unwrap();
    put(b"\xff");
    let first = lab.digest();
    fs::remove_file(lab.path("data").join(OsStr::from_bytes(b"\xff"))).unwrap();
    put(b"\xfe");
    assert_ne!(lab.digest(), first);
}

#[test]
fn a_pattern_sees_changes_of_the_files_it_names_and_of_no_others() {
    let lab = Lab::new();
    let look = || lab.cache().glob(lab.folder.path(), "data/**/[a-c].txt").unwrap();
    let before = look();
    lab.write("data/deep/d.txt", "other");
    assert!(!before.has_changed());
    assert_eq!(look().digest, before.digest);
    lab.write("data/deep/c.txt", "other");
    assert!(before.has_changed());
    assert_ne!(look().digest, before.digest);
    lab.cache().keep_manifest(&before).unwrap();
    assert_eq!(lab.cache().file_changes(before.digest, &look()), None, "it was looked at after the change");
}

#[test]
fn the_files_that_differ_from_those_a_result_used_are_named() {
    let lab = Lab::new();
    let before = lab.data();
    lab.cache().keep_manifest(&before).unwrap();
    lab.write("data/deep/c.txt", "other");
    lab.write("data/deep/new.txt", "new");
    fs::remove_file(lab.path("data/b.txt")).unwrap();
    fs::rename(lab.path("data/other"), lab.path("data/others")).unwrap();
    let names = |names: &[&str]| FileNames {
        count: names.len(),
        first: names.iter().map(ToString::to_string).collect(),
    };
    let told = FileChanges {
        added: names(&["deep/new.txt", "others/e.txt"]),
        removed: names(&["b.txt", "other/e.txt"]),
        changed: names(&["deep/c.txt"]),
    };
    assert_eq!(lab.cache().file_changes(before.digest, &lab.data()), Some(told));
    let kept = || walkdir::WalkDir::new(lab.path("cache/v1/manifests")).min_depth(2).into_iter().count();
    assert_eq!(kept(), 3, "three levels");
    lab.cache().keep_manifest(&lab.data()).unwrap();
    assert_eq!(kept(), 5, "one level stayed as it was, another has only another name");
    fs::remove_dir_all(lab.path("cache/v1/manifests")).unwrap();
    assert_eq!(lab.cache().file_changes(before.digest, &lab.data()), None);
}

#[test]
fn a_file_may_be_cut_short_while_it_is_hashed() {
    let lab = Lab::new();
    let (cache, path) = (lab.cache(), lab.path("large"));
    let file = fs::File::create(&path).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                file.set_len(256 << 20).unwrap();
                std::thread::sleep(Duration::from_millis(5));
                file.set_len(0).unwrap();
            }
        });
        for _ in 0..5 {
            let _ = cache.file(lab.folder.path(), &path);
        }
        is_done.store(true, Ordering::Relaxed);
    });
}
