//! What a folder contains: names and digests, level by level.
//!
//! The digest of a folder is the hash of its [`Tree`], in which folders stand by their own
//! digests. So a tree is checked by its name, equal parts are kept once, and two folders are
//! compared by looking only where they differ.

use crate::digest::Digest;

/// BLAKE3's derive-key context for a folder: relative names and contents, in order of the names.
const FOLDER_CONTEXT: &str = "pipe 2026-11 folder v2";

/// One level of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tree {
    /// In order of the names, each of which is there once.
    pub entries: Vec<Entry>,
}

/// A file, or a folder that has files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The name, in the system's bytes.
    pub name: Vec<u8>,
    pub is_folder: bool,
    /// The hash of a file's bytes, or of a folder's tree.
    pub digest: Digest,
}

impl Tree {
    /// The file or folder called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.place(name).map(|at| &self.entries[at])
    }

    /// Where the entry called `name` stands.
    pub fn place(&self, name: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()
    }

    /// What [`digest`] hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * 64);
        for entry in &self.entries {
            bytes.push(u8::from(entry.is_folder));
            bytes.extend_from_slice(&(entry.name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&entry.name);
            bytes.extend_from_slice(entry.digest.as_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut entries = Vec::new();
        while let Some((is_folder, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk()?;
            let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let (digest, rest) = rest.split_first_chunk::<32>()?;
            entries.push(Entry {
                name: name.to_vec(),
                is_folder: *is_folder == 1,
                digest: Digest::from(*digest),
            });
            bytes = rest;
        }
        Some(Self { entries })
    }
}

/// The digest of the folder with this tree.
pub(super) fn digest(tree: &[u8]) -> Digest {
    Digest::from(blake3::derive_key(FOLDER_CONTEXT, tree))
}
