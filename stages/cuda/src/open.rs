//! Opening a GPU for a stage.

use pipe_stages::{contract::StageError, gpt2::Accelerator};

use crate::devices;

/// Opens the first GPU that this process sees.
pub fn open() -> Result<Box<dyn Accelerator>, StageError> {
    let devices = devices().map_err(|err| StageError::new(err.to_string()).help(err.help()))?;
    let message = format!("`{}` is not used yet", devices[0].name);
    Err(StageError::new(message).help("run with `--device cpu`"))
}
