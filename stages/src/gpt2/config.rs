//! The shape of a GPT-2.

/// The numbers that fix every tensor's shape. The MLP is four times as wide as the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads of a block; divides `n_embd`.
    pub n_head: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Positions, so the longest prompt.
    pub block_size: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
}

impl Config {
    /// The published GPT-2 of 124M parameters.
    pub const GPT2_124M: Config =
        Config { n_layer: 12, n_head: 12, n_embd: 768, block_size: 1024, vocab_size: 50257 };

    /// Says what is wrong with these numbers, if anything.
    pub fn check(&self) -> Result<(), String> {
        let numbers = [
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_embd", self.n_embd),
            ("block_size", self.block_size),
            ("vocab_size", self.vocab_size),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Err(format!("`{name}` must be at least 1"));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(format!("`n_head` {} does not divide `n_embd` {}", self.n_head, self.n_embd));
        }
        Ok(())
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Width of the MLP's inner layer.
    pub fn n_inner(&self) -> usize {
        4 * self.n_embd
    }

    /// Parameters in all; the output matrix is `wte` and counts once.
    pub fn parameters(&self) -> usize {
        super::tensor_shapes(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}
