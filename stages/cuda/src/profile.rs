//! What the parts of a computation take on the device that runs them.
//!
//! A [`Profiled`] machine hands on everything, and while it records it has the [`Clock`] of the
//! machine below mark where each kernel, product and copy begins and ends. Work that `dfdx` starts by
//! itself is not seen; it is what is missing from [`Profile::span`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::Gradients;
use pipe_stages::gpt2::{Failure, Precision};

use crate::machine::{Argument, Fetched, Launch, Loss, Machine, Numbers, RawProduct, Trouble};

/// A machine that tells when what it was told is done.
pub trait Clock: Machine {
    /// A moment in the order of what the machine does.
    type Mark: std::fmt::Debug + 'static;

    /// The moment when all that was started before is done.
    fn mark(&self) -> Result<Self::Mark, Trouble<Self>>;

    /// Seconds from one mark to a later one, which is waited for.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64, Trouble<Self>>;

    /// Waits until all that was started is done.
    fn wait(&self) -> Result<(), Trouble<Self>> {
        let now = self.mark()?;
        self.seconds(&now, &now).map(drop)
    }
}

/// A piece of work, but for the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A kernel.
    Kernel(&'static str),
    /// A matrix product.
    Product {
        /// Rows of the result.
        m: usize,
        /// Columns of the result.
        n: usize,
        /// Products of a sum.
        k: usize,
        /// Of both factors.
        format: Precision,
        /// Whether the factors are transposed.
        transposed: [bool; 2],
    },
    /// A buffer of zeros: taken from those kept or allocated, then filled.
    Zeros,
    /// A copy to the device, with what the host does to prepare it.
    Upload,
    /// A copy from the device.
    Download,
}

impl Task {
    fn product(product: &RawProduct) -> Self {
        let RawProduct { m, n, k, a, b, format, .. } = *product;
        Self::Product { m, n, k, format, transposed: [a.transposed, b.transposed] }
    }

    /// Multiplications and additions of a product.
    pub fn operations(&self) -> Option<f64> {
        match self {
            Self::Product { m, n, k, .. } => Some(2.0 * *m as f64 * *n as f64 * *k as f64),
            _ => None,
        }
    }

    /// What a person calls it: the kernel, or like `product 3072×2304×768 f16 nn`, where `t` is a
    /// transposed factor.
    pub fn name(&self) -> String {
        match self {
            Self::Kernel(name) => (*name).to_owned(),
            Self::Product { m, n, k, format, transposed } => {
                let [a, b] = transposed.map(|transposed| if transposed { 't' } else { 'n' });
                format!("product {m}×{n}×{k} {format} {a}{b}")
            }
            Self::Zeros => "zeros".to_owned(),
            Self::Upload => "upload".to_owned(),
            Self::Download => "download".to_owned(),
        }
    }
}

/// All that was recorded of one task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The task.
    pub task: Task,
    /// How often it was done.
    pub count: usize,
    /// What that took together.
    pub seconds: f64,
}

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Every task, in the order in which they came first.
    pub shares: Vec<Share>,
    /// Seconds from the beginning of the first task to the end of the last.
    pub span: f64,
}

impl Profile {
    fn add(&mut self, added: Share) {
        match self.shares.iter_mut().find(|share| share.task == added.task) {
            Some(share) => {
                share.count += added.count;
                share.seconds += added.seconds;
            }
            None => self.shares.push(added),
        }
    }

    /// Adds what was recorded at another time.
    pub fn merge(&mut self, other: Self) {
        other.shares.into_iter().for_each(|share| self.add(share));
        self.span += other.span;
    }

    /// Seconds of all tasks together.
    pub fn busy(&self) -> f64 {
        self.shares.iter().map(|share| share.seconds).sum()
    }
}

/// A task that was recorded.
#[derive(Debug)]
struct Note<M: Clock> {
    task: Task,
    begin: M::Mark,
    end: M::Mark,
}

/// What was recorded so far; `None` while nothing is.
type Notes<M> = Option<Vec<Note<M>>>;

/// A machine that can record what it does.
#[derive(Debug, Clone)]
pub struct Profiled<M: Clock> {
    machine: M,
    /// Clones share them.
    notes: Arc<Mutex<Notes<M>>>,
}

impl<M: Clock> Profiled<M> {
    /// Records nothing yet.
    pub fn new(machine: M) -> Self {
        Self { machine, notes: Arc::default() }
    }

    /// The machine below, whose work is never recorded.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Records from now on.
    pub fn record(&self) {
        *self.notes() = Some(Vec::new());
    }

    /// Records no longer; waits for what was recorded and returns what it took.
    pub fn take(&self) -> Result<Profile, Trouble<M>> {
        let notes = self.notes().take().unwrap_or_default();
        let mut profile = Profile::default();
        for Note { task, begin, end } in &notes {
            let seconds = self.machine.seconds(begin, end)?;
            profile.add(Share { task: *task, count: 1, seconds });
        }
        if let (Some(first), Some(last)) = (notes.first(), notes.last()) {
            profile.span = self.machine.seconds(&first.begin, &last.end)?;
        }
        Ok(profile)
    }

    fn notes(&self) -> MutexGuard<'_, Notes<M>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `task` by `run`, between two marks while it is recorded.
    fn note<T>(&self, task: Task, run: impl FnOnce(&M) -> Result<T, Trouble<M>>) -> Result<T, Trouble<M>> {
        if self.notes().is_none() {
            return run(&self.machine);
        }
        let begin = self.machine.mark()?;
        let done = run(&self.machine)?;
        let end = self.machine.mark()?;
        if let Some(notes) = self.notes().as_mut() {
            notes.push(Note { task, begin, end });
        }
        Ok(done)
    }
}

impl<M: Clock> Clock for Profiled<M> {
    type Mark = M::Mark;

    fn mark(&self) -> Result<M::Mark, Trouble<M>> {
        self.machine.mark()
    }

    fn seconds(&self, from: &M::Mark, to: &M::Mark) -> Result<f64, Trouble<M>> {
        self.machine.seconds(from, to)
    }
}

#[allow(unsafe_code, reason = "hands on what its callers promise")]
impl<M: Clock> Machine for Profiled<M> {
    type Device = M::Device;

    fn device(&self) -> &M::Device {
        self.machine.device()
    }

    fn address(numbers: &Numbers<Self>) -> u64 {
        M::address(numbers)
    }

    fn zeros(&self, count: usize) -> Result<Numbers<Self>, Trouble<M>> {
        self.note(Task::Zeros, |machine| machine.zeros(count))
    }

    fn scratch(&self, count: usize) -> Result<Numbers<Self>, Trouble<M>> {
        self.machine.scratch(count)
    }

    fn recycle(&self, numbers: Numbers<Self>) {
        self.machine.recycle(numbers);
    }

    fn trim(&self) -> Result<(), Trouble<M>> {
        self.machine.trim()
    }

    fn has_room(&self) -> Result<bool, Trouble<M>> {
        self.machine.has_room()
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<(), Trouble<M>> {
        // SAFETY: the caller promises it of the machine below.
        self.note(Task::Kernel(launch.kernel), |machine| unsafe { machine.launch(launch, arguments) })
    }

    unsafe fn multiply(&self, product: &RawProduct) -> Result<(), Trouble<M>> {
        // SAFETY: the caller promises it of the machine below.
        self.note(Task::product(product), |machine| unsafe { machine.multiply(product) })
    }

    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), Trouble<M>> {
        // SAFETY: the caller promises it of the machine below.
        self.note(Task::Upload, |machine| unsafe { machine.upload(bytes, to) })
    }

    unsafe fn download(&self, from: u64, into: &mut [u8]) -> Result<(), Trouble<M>> {
        // SAFETY: the caller promises it of the machine below.
        self.note(Task::Download, |machine| unsafe { machine.download(from, into) })
    }

    unsafe fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, Trouble<M>> {
        // SAFETY: the caller promises it of the machine below.
        self.note(Task::Download, |machine| unsafe { machine.fetch(from, bytes) })
    }

    fn backward(&self, loss: Loss<Self>) -> Result<Gradients<f32, M::Device>, Trouble<M>> {
        self.machine.backward(loss)
    }

    fn failure(trouble: Trouble<M>) -> Failure {
        M::failure(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::{Precision, Profile, Share, Task};

    #[test]
    fn what_was_recorded_of_one_task_is_summed_in_the_order_of_first_times() {
        let share = |task, seconds| Share { task, count: 1, seconds };
        let (first, second) = (Task::Kernel("gelu_f16"), Task::Upload);
        let mut profile = Profile { shares: vec![share(first, 0.5)], span: 1.0 };
        profile.merge(Profile { shares: vec![share(second, 0.25), share(first, 0.125)], span: 2.0 });
        let summed = Share { task: first, count: 2, seconds: 0.625 };
        assert_eq!(profile, Profile { shares: vec![summed, share(second, 0.25)], span: 3.0 });
        assert!((profile.busy() - 0.875).abs() < 1e-12);
    }

    #[test]
    fn products_are_named_by_shape_format_and_how_factors_lie() {
        let (m, n, k, format) = (3072, 2304, 768, Precision::F16);
        let product = Task::Product { m, n, k, format, transposed: [false, true] };
        assert_eq!(product.name(), "product 3072×2304×768 f16 nt");
        assert_eq!(product.operations(), Some(2.0 * 3072.0 * 2304.0 * 768.0));
        assert_eq!(Task::Kernel("gelu_f16").operations(), None);
    }
}
