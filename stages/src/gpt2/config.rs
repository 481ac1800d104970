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

    /// Most parameters that a model can have: far above GPT-2's sizes, and a file of 400 GB.
    const MOST_PARAMETERS: u128 = 100_000_000_000;

    /// Says which of these numbers is wrong and why, if one is.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let numbers = [
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_embd", self.n_embd),
            ("block_size", self.block_size),
            ("vocab_size", self.vocab_size),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Err((name, format!("`{name}` must be at least 1")));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let message = format!("`n_head` {} does not divide `n_embd` {}", self.n_head, self.n_embd);
            return Err(("n_head", message));
        }
        let [layers, c, positions, tokens] =
            [self.n_layer, self.n_embd, self.block_size, self.vocab_size].map(|number| number as u128);
        let matrices = c.saturating_mul(c).saturating_mul(12).saturating_mul(layers);
        let parameters = c.saturating_mul(tokens.saturating_add(positions)).saturating_add(matrices);
        if parameters > Self::MOST_PARAMETERS {
            let (name, _) = numbers.into_iter().max_by_key(|(_, number)| *number).unwrap_or(numbers[0]);
            let message = format!("a GPT-2 of this shape would have {parameters} parameters");
            return Err((name, message));
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
