//! Bytes kept small: deflate, once for equal bytes.

use std::io::{Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use rusqlite::{Connection, OptionalExtension};

/// Keeps `bytes` under `digest` unless they are kept already.
pub(super) fn keep(conn: &Connection, digest: &str, bytes: &[u8]) -> rusqlite::Result<()> {
    if conn.prepare_cached("SELECT 1 FROM content WHERE digest = ?")?.exists([digest])? {
        return Ok(());
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writing to memory does not fail");
    let deflated = encoder.finish().expect("writing to memory does not fail");
    conn.prepare_cached("INSERT OR IGNORE INTO content (digest, bytes, deflate) VALUES (?, ?, ?)")?
        .execute((digest, bytes.len() as i64, deflated))?;
    Ok(())
}

/// Keeps `bytes` under their own BLAKE3 hash, which is returned.
pub(super) fn keep_by_hash(conn: &Connection, bytes: &[u8]) -> rusqlite::Result<String> {
    let digest = blake3::hash(bytes).to_hex().to_string();
    keep(conn, &digest, bytes)?;
    Ok(digest)
}

/// The bytes kept under `digest`, if any.
pub(super) fn find(conn: &Connection, digest: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let found = conn
        .prepare_cached("SELECT bytes, deflate FROM content WHERE digest = ?")?
        .query_row([digest], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    found
        .map(|(size, deflated)| {
            let mut bytes = Vec::with_capacity(size as usize);
            DeflateDecoder::new(deflated.as_slice()).read_to_end(&mut bytes).map_err(|err| {
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, Box::new(err))
            })?;
            Ok(bytes)
        })
        .transpose()
}
