//! A folder as one file: a tar archive, the same bytes for the same contents.
//!
//! What                            | In the archive
//! --------------------------------|-----------------------------------------------
//! files                           | in order of the bytes of their relative names
//! whether the owner may run them  | as mode 0755, else 0644
//! links                           | what they lead to
//! times, owners, other modes      | no
//! folders without files           | no: as for git, they make no difference
//! pipes, sockets, devices         | an error

mod difference;

use std::{
    error::Error,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use tar::{Archive, Builder, EntryType, Header};
use thiserror::Error;
use walkdir::WalkDir;

pub use difference::compare;

/// Bytes that are read or written at a time.
const PIECE: usize = 1 << 18;

/// A folder that cannot be packed; paths begin with its name.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried, such as `read`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link leads to nothing.
    #[error("`{}` is a link to nothing: remove the link, or make what it leads to", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// A link leads to a folder above it.
    #[error("`{}` leads back to a folder above it: remove the link", path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
    /// Something that has no contents to keep.
    #[error("`{}` is a pipe, socket or device: remove it", path.display())]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
}

/// The files below a folder, links followed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Relative, in order of their bytes.
    files: Vec<PathBuf>,
    has_links: bool,
}

impl Folder {
    /// Looks at all that lies below `path`.
    pub fn list(path: &Path) -> Result<Self, FolderError> {
        let mut folder = Self { path: path.to_owned(), files: Vec::new(), has_links: path.is_symlink() };
        for entry in WalkDir::new(path).follow_links(true).min_depth(1) {
            let entry = entry.map_err(|err| folder.unlisted(err))?;
            folder.has_links |= entry.path_is_symlink();
            if entry.file_type().is_file() {
                folder.files.push(folder.relative(entry.path()).to_owned());
            } else if !entry.file_type().is_dir() {
                return Err(FolderError::NoFile { path: folder.shown(folder.relative(entry.path())) });
            }
        }
        folder.files.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        Ok(folder)
    }

    /// Whether anything in it, or the folder itself, is a link.
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// Writes its files into `tar`. With `removing` each is removed once it is written, so that no more
    /// than the largest of them takes room twice. Not so where there are links: one may lead to a file that
    /// is removed before it is followed.
    pub fn pack(&self, tar: &File, removing: bool) -> Result<(), FolderError> {
        let mut archive = Builder::new(BufWriter::with_capacity(PIECE, tar));
        for name in &self.files {
            append(&mut archive, name, &self.path.join(name)).map_err(self.not_packed(name))?;
            if removing {
                // What stays is removed with the folder.
                let _ = fs::remove_file(self.path.join(name));
            }
        }
        let written = archive.into_inner().and_then(|mut tar| tar.flush());
        written.map_err(self.not_packed(Path::new("")))
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).expect("what is listed lies in the folder")
    }

    /// The path of a file below the folder, from the name of the folder on.
    fn shown(&self, name: &Path) -> PathBuf {
        let folder = Path::new(self.path.file_name().unwrap_or_default());
        // Without a name it would end in a slash.
        if name.as_os_str().is_empty() { folder.to_owned() } else { folder.join(name) }
    }

    fn not_packed(&self, name: &Path) -> impl FnOnce(io::Error) -> FolderError {
        let path = self.shown(name);
        move |source| FolderError::Io { what: "pack", path, source }
    }

    /// Why something below the folder could not be listed.
    fn unlisted(&self, err: walkdir::Error) -> FolderError {
        let at = err.path().unwrap_or(&self.path);
        let path = self.shown(self.relative(at));
        if err.loop_ancestor().is_some() {
            return FolderError::Loop { path };
        }
        let is_link = at.is_symlink();
        let source = err.into_io_error().expect("all but loops are told by the system");
        if is_link && source.kind() == io::ErrorKind::NotFound {
            return FolderError::BrokenLink { path };
        }
        FolderError::Io { what: "read", path, source }
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Adds the file at `path` as `name`.
fn append(archive: &mut Builder<impl Write>, name: &Path, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(if found.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(found.len());
    // `tar` refuses a long name that begins with bytes that are no UTF-8.
    let name = if name.to_str().is_some() { name.to_owned() } else { Path::new(".").join(name) };
    let mut data = file.take(found.len());
    archive.append_data(&mut header, name, &mut data)?;
    if data.limit() > 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"));
    }
    Ok(())
}

/// Makes the folder `to` with the files that are packed in `tar`, which [`Folder::pack`] wrote.
///
/// Nothing is written outside of `to` and nothing replaced that lies there. With `read_only` nobody may
/// write to the files. If it fails, some of the files may be there.
pub fn unpack(tar: &Path, to: &Path, read_only: bool) -> io::Result<()> {
    unpack_while(tar, to, read_only, &|| true)
}

/// The same, given up with an error if before one of its pieces it does not go on.
pub fn unpack_while(tar: &Path, to: &Path, read_only: bool, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let tar = Heeding { file: File::open(tar)?, goes_on };
    let mut archive = Archive::new(BufReader::with_capacity(PIECE, tar));
    archive.set_overwrite(false);
    archive.set_mask(if read_only { 0o222 } else { 0 });
    // Of 1970: some programs refuse files as old as that.
    archive.set_preserve_mtime(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = OsStr::from_bytes(&entry.path_bytes()).display().to_string();
        let is_file = entry.header().entry_type().is_file();
        let is_ours = is_file && entry.unpack_in(to).map_err(|err| of_file(&name, &err))?;
        if !is_ours {
            let message = format!("`{name}` is no file below the folder");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    Ok(())
}

/// A file that is read while somebody wants it.
struct Heeding<'a> {
    file: File,
    goes_on: &'a dyn Fn() -> bool,
}

impl Read for Heeding<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if (self.goes_on)() { self.file.read(into) } else { Err(io::Error::other("it was given up")) }
    }
}

/// What the system said of the file `name`: `tar` says twice, and with whole paths, what it was doing.
fn of_file(name: &str, err: &io::Error) -> io::Error {
    let mut told: &dyn Error = err;
    while let Some(cause) = told.source() {
        told = cause;
    }
    io::Error::new(err.kind(), format!("`{name}`: {told}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use tempfile::{NamedTempFile, TempDir};

    use super::*;

    /// A folder of these files, made in this order.
    fn folder(files: &[(&[u8], &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn packed(folder: &Path, removing: bool) -> NamedTempFile {
        let tar = NamedTempFile::new().unwrap();
        Folder::list(folder).unwrap().pack(tar.as_file(), removing).unwrap();
        tar
    }

    fn files(folder: &Path) -> Vec<(Vec<u8>, String)> {
        let listed = Folder::list(folder).unwrap().files.into_iter();
        let files = listed.map(|name| (folder.join(&name), name.into_os_string().into_vec()));
        files.map(|(path, name)| (name, fs::read_to_string(path).unwrap())).collect()
    }

    #[test]
    fn the_bytes_follow_from_names_contents_and_who_may_run_them_alone() {
        let one = folder(&[(b"a/c", "1"), (b"a-b", "2"), (b"a/d/e", "3")]);
        let two = folder(&[(b"a/d/e", "3"), (b"gone", ""), (b"a-b", "2"), (b"a/c", "1")]);
        fs::remove_file(two.path().join("gone")).unwrap();
        fs::create_dir_all(two.path().join("none/at/all")).unwrap();
        fs::set_permissions(two.path().join("a-b"), fs::Permissions::from_mode(0o600)).unwrap();
        File::open(two.path().join("a/c")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let bytes = |folder: &TempDir| fs::read(packed(folder.path(), false)).unwrap();
        let before = bytes(&one);
        assert_eq!(before, bytes(&two));
        let hash = blake3::hash(&before).to_hex();
        assert_eq!(&hash[..16], "fd4bfd39bd706411", "the bytes of what is in caches already");
        fs::set_permissions(two.path().join("a-b"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(before, bytes(&two));
    }

    #[test]
    fn names_may_be_long_and_no_utf8() {
        let long = [b"\xff".repeat(120), b"x".repeat(130)].map(|name| [&b"\xfe/"[..], &name].concat());
        let names =
            [b"\xff\\", b"\xc3".repeat(150).as_slice(), &long[0], &long[1], b"..a", b"-"].map(<[u8]>::to_vec);
        let given: Vec<(&[u8], &str)> = names.iter().map(|name| (name.as_slice(), "text")).collect();
        let from = folder(&given);
        let to = tempfile::tempdir().unwrap();
        unpack(packed(from.path(), false).path(), to.path(), true).unwrap();
        assert_eq!(files(to.path()).len(), names.len());
        assert_eq!(files(to.path()), files(from.path()));
    }

    #[test]
    fn files_are_removed_once_they_are_packed() {
        let from = folder(&[(b"a/b", "1"), (b"c", "2")]);
        let before = files(from.path());
        let tar = packed(from.path(), true);
        assert_eq!(files(from.path()), []);
        let to = from.path().join("again");
        unpack(tar.path(), &to, false).unwrap();
        assert_eq!(files(&to), before);
        fs::write(to.join("c"), "changed").unwrap();
    }

    #[test]
    fn unpacking_is_given_up_between_pieces() {
        let from = folder(&[(b"a", &"a".repeat(2 * PIECE)), (b"b", "b")]);
        let tar = packed(from.path(), false);
        let to = tempfile::tempdir().unwrap();
        let pieces = std::cell::Cell::new(0);
        let goes_on = || pieces.replace(pieces.get() + 1) < 2;
        unpack_while(tar.path(), to.path(), true, &goes_on).unwrap_err();
        assert!(to.path().join("a").exists() && !to.path().join("b").exists());
    }

    #[test]
    fn a_folder_without_files_is_a_folder_again() {
        let from = folder(&[]);
        let to = from.path().join("to");
        unpack(packed(from.path(), true).path(), &to, true).unwrap();
        assert!(to.is_dir());
    }

    #[test]
    fn nothing_is_unpacked_elsewhere_or_over_something() {
        let entry = |name: &str, kind: EntryType| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(1);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let tar = NamedTempFile::new().unwrap();
            let mut archive = Builder::new(tar.as_file());
            archive.append(&header, &b"x"[..]).unwrap();
            archive.finish().unwrap();
            drop(archive);
            tar
        };
        let to = folder(&[(b"below/there", "kept")]);
        let below = to.path().join("below");
        let unpacked = |tar: NamedTempFile| unpack(tar.path(), &below, false);
        unpacked(entry("../outside", EntryType::Regular)).unwrap_err();
        unpacked(entry("link", EntryType::Symlink)).unwrap_err();
        let over = unpacked(entry("there", EntryType::Regular)).unwrap_err();
        assert_eq!(over.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(over.to_string(), "`there`: File exists (os error 17)");
        unpacked(entry("/inside", EntryType::Regular)).unwrap();
        let names = files(to.path()).into_iter().map(|(name, text)| (String::from_utf8(name).unwrap(), text));
        let found: Vec<_> = names.collect();
        let expected = [("below/inside", "x"), ("below/there", "kept")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
