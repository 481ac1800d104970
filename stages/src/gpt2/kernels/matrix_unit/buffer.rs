//! Memory for tiles.

use memmap2::MmapMut;

use super::Tile;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// From this size on, a buffer is whole huge pages.
const LARGE: usize = HUGE / 4;

/// Room for tiles in huge pages, where the system has them: they spare cache and address lookups a
/// tenth of a product's time.
#[derive(Debug)]
pub(super) struct Buffer(Option<MmapMut>);

impl Buffer {
    pub(super) const EMPTY: Self = Self(None);

    /// Room for `count` tiles; what it held may be lost.
    pub(super) fn tiles(&mut self, count: usize) -> &mut [Tile] {
        let bytes = count * size_of::<Tile>();
        if self.0.as_ref().is_none_or(|map| map.len() < bytes) {
            let size = if bytes < LARGE { bytes } else { bytes.next_multiple_of(HUGE) };
            let map = MmapMut::map_anon(size).expect("memory for tiles");
            #[cfg(target_os = "linux")]
            if size >= HUGE {
                // Without them the buffer is only slower.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            self.0 = Some(map);
        }
        let map = self.0.as_mut().map_or(&mut [][..], |map| &mut map[..bytes]);
        bytemuck::cast_slice_mut(map)
    }

    /// All that it has room for.
    pub(super) fn all(&self) -> &[Tile] {
        self.0.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::EMPTY
    }
}
