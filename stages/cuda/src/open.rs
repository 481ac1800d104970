//! Opening a GPU for a stage.

use pipe_stages::{
    contract::StageError,
    data::HiddenFormat,
    gpt2::{
        Accelerator, Activation, BlockWeights, Config, Encoder, Failure, Finisher, Norm, Precision, Weights,
        training::{Learner, Moments, Network},
    },
};

use crate::{
    DeviceInfo, devices,
    gpu::Gpu,
    inference::{self, batch_positions},
    launch::{Heads, Kernels},
    machine::Machine,
    training::DeviceLearner,
};

/// The least compute capability: the first whose tensor cores know bf16.
pub const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// Opens the first GPU that this process sees, for stages.
pub fn open() -> Result<Box<dyn Accelerator>, StageError> {
    let (info, gpu) = open_gpu()?;
    Ok(Box::new(Opened { info, kernels: Kernels::new(gpu) }))
}

/// Opens the first GPU that this process sees.
pub fn open_gpu() -> Result<(DeviceInfo, Gpu), StageError> {
    let devices = devices().map_err(|err| StageError::new(err.to_string()).help(err.help()))?;
    let info = devices.into_iter().next().expect("there is one, or an error");
    if info.capability < LEAST_CAPABILITY {
        let (major, minor) = info.capability;
        let message = format!("`{}` has compute capability {major}.{minor}, below 8.0", info.name);
        return Err(StageError::new(message).help("use a GPU of 2020 or later, or run with `--device cpu`"));
    }
    let gpu = Gpu::open(info.index).map_err(|trouble| {
        let cause = StageError::from(Gpu::failure(trouble));
        StageError::new(format!("cannot open `{}`", info.name))
            .help("look at `nvidia-smi`; a driver of version 580 or later is needed")
            .because(cause)
    })?;
    Ok((info, gpu))
}

#[derive(Debug)]
struct Opened {
    info: DeviceInfo,
    kernels: Kernels<Gpu>,
}

impl Accelerator for Opened {
    fn name(&self) -> String {
        format!("cuda ({})", self.info.name)
    }

    fn decides_bits(&self) -> String {
        let DeviceInfo { name, capability: (major, minor), driver, .. } = &self.info;
        let blas = self.kernels.machine().blas_version();
        format!("cuda, {name}, {major}.{minor}, driver for CUDA {}.{}, cuBLAS {blas}", driver.0, driver.1)
    }

    fn batch_positions(&self, config: &Config) -> usize {
        let free = self.kernels.machine().memory().map_or(self.info.memory / 2, |(free, _)| free);
        batch_positions(config, free)
    }

    fn encoder(
        &self,
        weights: &Weights,
        format: HiddenFormat,
        precision: Precision,
    ) -> Result<Box<dyn Encoder>, Failure> {
        check(weights.config())?;
        Ok(Box::new(inference::Encoder::new(&self.kernels, weights, format, precision)?))
    }

    fn finisher(
        &self,
        config: &Config,
        blocks: &[BlockWeights<'_>],
        norm: &Norm<'_>,
        activation: Activation,
        precision: Precision,
    ) -> Result<Box<dyn Finisher>, Failure> {
        check(config)?;
        let finisher = inference::Finisher::new(&self.kernels, config, blocks, norm, activation, precision)?;
        Ok(Box::new(finisher))
    }

    fn learner(&self, network: &Network, moments: &[Moments]) -> Result<Box<dyn Learner>, Failure> {
        check(network.config())?;
        Ok(Box::new(DeviceLearner::new(&self.kernels, network, moments)?))
    }
}

/// Whether the kernels take a model of this shape.
fn check(config: &Config) -> Result<(), Failure> {
    let (width, positions) = (config.head_width(), config.block_size);
    let message = if width > Heads::WIDEST {
        format!("heads {width} wide do not run on CUDA, at most {} do", Heads::WIDEST)
    } else if positions > Heads::LONGEST {
        format!("models of {positions} positions do not run on CUDA, of at most {} do", Heads::LONGEST)
    } else {
        return Ok(());
    };
    Err(StageError::new(message).help("run with `--device cpu`").into())
}
