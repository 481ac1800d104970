//! What computes the updates of a network.

use dfdx::prelude::Gradients;

use super::{AdamW, Batch, Moments, Network, adamw::sum_of_squares, parameters::Grads};
use crate::{
    contract::StageError,
    data::{Hidden, States},
    gpt2::Failure,
};

/// Computes losses, gradients and updates: on the processor in the network itself, on a device in
/// copies of its parameters and moments, which [`Learner::fetch`] brings back.
pub trait Learner {
    /// Rows to compute together where `wanted` are wanted of a `batch`: as wanted, unless the device
    /// is better used otherwise.
    fn micro_batch(&self, wanted: usize, _batch: usize) -> usize {
        wanted
    }

    /// Rows to compute together without gradients, where `usual` are usual.
    fn evaluation_batch(&self, usual: usize) -> usize {
        usual
    }

    /// Whether [`Self::add`] returns before the work is done, which goes on elsewhere.
    fn is_elsewhere(&self) -> bool {
        false
    }

    /// Whether it holds the states of this row of the file since an earlier batch, so that they need not be
    /// given again.
    fn holds(&self, _row: usize) -> bool {
        false
    }

    /// Frees the states that it holds; returns whether there were any.
    fn forget(&mut self) -> bool {
        false
    }

    /// Begins an update: no gradients, no loss. An update that was begun before is forgotten.
    fn begin(&mut self) -> Result<(), Failure>;

    /// Adds the gradients of `share · Σ loss` over the prompts of `batch` and their losses.
    ///
    /// Where it fails for lack of memory, the update must be begun again.
    fn add(
        &mut self,
        network: &Network,
        given: Given,
        batch: Batch,
        labels: &[u8],
        share: f32,
    ) -> Result<(), Failure>;

    /// Ends the update: clips and changes the parameters, unless loss or norm is not finite.
    ///
    /// Returns the sum of the losses, and the norm of all gradients before clipping.
    fn update(
        &mut self,
        network: &mut Network,
        moments: &mut [Moments],
        update: &Update,
    ) -> Result<(f64, f64), Failure>;

    /// The logit of each prompt of `batch`, without dropout.
    fn logits(&mut self, network: &Network, given: Given, batch: Batch) -> Result<Vec<f32>, Failure>;

    /// The gradients of the last update before clipping, as in [`Network::parameters`]; nothing where
    /// they are on a device, unless they are `wanted`.
    fn gradients(&mut self, wanted: bool) -> Result<&[Vec<f32>], Failure>;

    /// Brings parameters and moments up to date.
    fn fetch(&mut self, network: &mut Network, moments: &mut [Moments]) -> Result<(), Failure>;
}

/// The hidden states of the prompts of a batch, as far as a learner does not hold them.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which row of the file each prompt is.
    pub rows: Vec<usize>,
    /// The prompts whose states are given, in rising order.
    pub lacked: Vec<usize>,
    /// Their states, one after the other, `[positions, n_embd]`.
    pub states: States,
}

impl Given {
    /// All that `learner` lacks of the prompts in `rows` of `hidden`.
    pub fn read(learner: &dyn Learner, hidden: &Hidden, rows: &[usize]) -> Result<Self, StageError> {
        let lacked: Vec<usize> = (0..rows.len()).filter(|prompt| !learner.holds(rows[*prompt])).collect();
        let wanted: Vec<usize> = lacked.iter().map(|prompt| rows[*prompt]).collect();
        Ok(Self { rows: rows.to_vec(), lacked, states: hidden.states(&wanted)? })
    }

    /// Whether `learner` holds all that is not given.
    pub fn is_enough(&self, learner: &dyn Learner) -> bool {
        let has = |prompt| self.lacked.binary_search(&prompt).is_ok() || learner.holds(self.rows[prompt]);
        (0..self.rows.len()).all(has)
    }
}

/// How one update changes the parameters.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Counted from 0.
    pub step: u64,
    /// Learning rate.
    pub rate: f64,
    /// The optimizer.
    pub adamw: AdamW,
    /// Largest norm of all gradients; 0 for no limit.
    pub clip: f64,
}

/// The learner of this processor.
#[derive(Debug, Default)]
pub struct ProcessorLearner {
    gradients: Option<Grads>,
    loss: f64,
    last: Vec<Vec<f32>>,
}

impl Learner for ProcessorLearner {
    fn begin(&mut self) -> Result<(), Failure> {
        self.gradients = Some(Gradients::leaky());
        self.loss = 0.0;
        Ok(())
    }

    fn add(
        &mut self,
        network: &Network,
        given: Given,
        batch: Batch,
        labels: &[u8],
        share: f32,
    ) -> Result<(), Failure> {
        let gradients = self.gradients.take().expect("an update was begun");
        let (logits, gradients) =
            network.add_gradients(given.states.into_f32(), batch, labels, share, gradients)?;
        self.gradients = Some(gradients);
        self.loss += logits.iter().zip(labels).map(|(z, label)| cross_entropy(*z, *label)).sum::<f64>();
        Ok(())
    }

    fn update(
        &mut self,
        network: &mut Network,
        moments: &mut [Moments],
        update: &Update,
    ) -> Result<(f64, f64), Failure> {
        let gradients = self.gradients.take().expect("an update was begun");
        self.last = network.gradients(gradients)?;
        let norm = self.last.iter().map(|gradient| sum_of_squares(gradient)).sum::<f64>().sqrt();
        if self.loss.is_finite() && norm.is_finite() {
            let Update { step, rate, adamw, clip } = *update;
            let clipped = if clip > 0.0 { (clip / norm).min(1.0) } else { 1.0 };
            for ((parameter, gradient), moments) in
                network.parameters_mut().into_iter().zip(&self.last).zip(moments)
            {
                let decays = parameter.decays();
                parameter.change(|values| {
                    adamw.update(step, rate, clipped as f32, decays, values, gradient, moments);
                });
            }
        }
        Ok((self.loss, norm))
    }

    fn logits(&mut self, network: &Network, given: Given, batch: Batch) -> Result<Vec<f32>, Failure> {
        Ok(network.logits(given.states.into_f32(), batch)?)
    }

    fn gradients(&mut self, _: bool) -> Result<&[Vec<f32>], Failure> {
        Ok(&self.last)
    }

    fn fetch(&mut self, _: &mut Network, _: &mut [Moments]) -> Result<(), Failure> {
        Ok(())
    }
}

impl ProcessorLearner {
    /// Loss and gradients of what was added since the update was begun.
    pub(super) fn into_gradients(self, network: &Network) -> Result<(f64, Vec<Vec<f32>>), StageError> {
        let gradients = self.gradients.expect("an update was begun");
        Ok((self.loss, network.gradients(gradients)?))
    }
}

/// Binary cross-entropy of the logit `z`: `ln(1 + e^±z)`.
pub(super) fn cross_entropy(z: f32, label: u8) -> f64 {
    let against = if label == 1 { -f64::from(z) } else { f64::from(z) };
    against.max(0.0) + (-against.abs()).exp().ln_1p()
}
