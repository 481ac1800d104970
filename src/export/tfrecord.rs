//! The framing of TensorFlow's record files.
//!
//! ```text
//! length: u64, masked CRC-32C of it: u32, bytes, masked CRC-32C of them: u32        little-endian
//! ```

/// Appends `record` with its frame to `file`.
pub(super) fn append(file: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked_crc(&length).to_le_bytes());
    file.extend(record);
    file.extend(masked_crc(record).to_le_bytes());
}

/// The checksum, masked because sums of bytes that hold sums are weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
