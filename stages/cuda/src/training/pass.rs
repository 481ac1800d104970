//! What the operations on a micro-batch share.

use pipe_stages::gpt2::{Activation, LoraTarget, Precision, kernels::dropout::Site, training::Batch};

use crate::{
    buffer::Buffer,
    launch::{Heads, Kernels},
    machine::{Machine, Numbers, Trouble},
    prompts::{Dropped, Prompts},
    slice::{Slice, bytes_of},
};

/// One micro-batch on the device.
#[derive(Debug)]
pub struct Pass<M: Machine> {
    /// Of the machine.
    pub kernels: Kernels<M>,
    /// Where the prompts lie.
    pub prompts: Prompts<M>,
    /// What is dropped.
    pub draws: Draws<M>,
    /// Heads of attention.
    pub heads: Heads,
    /// Width of the stream.
    pub n_embd: usize,
    /// The form of GELU.
    pub activation: Activation,
    /// The format of products in the forward pass.
    pub forward: Precision,
    /// The format of products in the backward pass.
    pub backward: Precision,
}

/// The keys of the masks at every site where something is dropped.
#[derive(Debug)]
pub struct Draws<M: Machine> {
    keys: Option<Numbers<M>>,
    sites: Vec<DrawnSite>,
}

#[derive(Debug)]
struct DrawnSite {
    block: usize,
    site: Site,
    /// Bytes before its keys.
    at: usize,
    threshold: u64,
    kept: f32,
}

impl<M: Machine> Draws<M> {
    /// The masks of `batch` in `blocks`.
    pub fn new(kernels: &Kernels<M>, batch: &Batch, blocks: &[usize]) -> Result<Self, Trouble<M>> {
        let (mut bytes, mut sites) = (Vec::new(), Vec::new());
        let of_lora = LoraTarget::ALL.map(Site::LoraInput);
        let all = [Site::Attention, Site::AttentionBranch, Site::MlpBranch].into_iter().chain(of_lora);
        for (block, site) in blocks.iter().flat_map(|block| all.clone().map(move |site| (*block, site))) {
            let masks: Vec<_> = batch.masks(block, site).into_iter().flatten().collect();
            // A site drops in every prompt or in none.
            let Some(first) = masks.first() else { continue };
            sites.push(DrawnSite {
                block,
                site,
                at: bytes.len(),
                threshold: first.threshold,
                kept: first.kept,
            });
            bytes.extend(masks.iter().flat_map(|mask| mask.key.to_ne_bytes()));
        }
        let keys = if bytes.is_empty() { None } else { Some(kernels.upload(&bytes)?) };
        Ok(Self { keys, sites })
    }

    /// What is dropped at `site` of `block`.
    pub fn at(&self, machine: &M, block: usize, site: Site) -> Dropped<'_> {
        let drawn = self.sites.iter().find(|drawn| drawn.block == block && drawn.site == site);
        match (&self.keys, drawn) {
            (Some(keys), Some(drawn)) => Dropped {
                keys: Some(Slice::of(machine, keys).skip(drawn.at)),
                threshold: drawn.threshold,
                kept: drawn.kept,
            },
            _ => Dropped::NOTHING,
        }
    }
}

impl<M: Machine> Pass<M> {
    /// What is dropped at `site` of `block`.
    pub fn dropped(&self, block: usize, site: Site) -> Dropped<'_> {
        self.draws.at(self.kernels.machine(), block, site)
    }

    /// Room for `rows` of `width` numbers, to be written before they are read.
    pub fn buffer(&self, rows: usize, width: usize) -> Result<Buffer<M>, Trouble<M>> {
        self.kernels.buffer(rows * width)
    }

    /// As [`Self::buffer`] for numbers in `format`.
    pub fn buffer_in(&self, format: Precision, rows: usize, width: usize) -> Result<Buffer<M>, Trouble<M>> {
        self.kernels.buffer((rows * width * bytes_of(format)).div_ceil(4))
    }

    /// `x` `[rows, n_embd]`, of all positions or the `last` ones, after the dropout at `site` of `block`,
    /// in `format`; `None` where nothing is dropped.
    pub fn kept(
        &self,
        block: usize,
        site: Site,
        format: Precision,
        x: Slice<'_>,
        last: bool,
    ) -> Result<Option<Buffer<M>>, Trouble<M>> {
        let dropped = self.dropped(block, site);
        if dropped.keys.is_none() {
            return Ok(None);
        }
        let mut kept = self.buffer_in(format, self.prompts.rows(last), self.n_embd)?;
        let to = self.kernels.slice_mut(&mut kept);
        self.kernels.drop_rows(format, &to, x, dropped, &self.prompts, last, self.n_embd)?;
        Ok(Some(kept))
    }

    /// `rows` of `width` zeros.
    pub fn zeros(&self, rows: usize, width: usize) -> Result<Buffer<M>, Trouble<M>> {
        Buffer::zeros(self.kernels.machine(), rows * width)
    }

    /// The last row of each prompt of `x` `[positions, n_embd]`.
    pub fn last_rows(&self, x: &Numbers<M>) -> Result<Buffer<M>, Trouble<M>> {
        let mut out = self.buffer(self.prompts.count(), self.n_embd)?;
        let to = self.kernels.slice_mut(&mut out);
        self.kernels.gather_last(&to, self.kernels.slice(x), &self.prompts, self.n_embd)?;
        Ok(out)
    }
}
