//! Reviews by their length.

/// Half-open bins `(edge, next edge]` of review lengths in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    edges: Vec<u32>,
}

impl Bins {
    /// The bins between `edges`, or nothing unless there are two or more and they rise.
    pub fn new(edges: Vec<u32>) -> Option<Self> {
        let is_rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
        (edges.len() > 1 && is_rising).then_some(Self { edges })
    }

    /// The bins as (excluded lower edge, included upper edge), rising.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.edges.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// The index of the bin that holds `length`; nothing at or below the first edge and
    /// beyond the last.
    pub fn index(&self, length: u32) -> Option<usize> {
        let below = self.edges.partition_point(|edge| *edge < length);
        (below > 0 && below < self.edges.len()).then(|| below - 1)
    }
}
