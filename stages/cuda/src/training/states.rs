//! Hidden states that stay on a device: each row of the file is given once, not in every pass over the data.

use std::{collections::HashMap, sync::Arc};

use pipe_stages::{
    data::States,
    gpt2::{Precision, training::Given},
};

use crate::{
    buffer::Buffer,
    launch::Kernels,
    machine::{Machine, Trouble},
    prompts::Prompts,
    slice::bytes_of,
};

/// The states of rows of one file, as far as there is room for them.
#[derive(Debug)]
pub struct HeldStates<M: Machine> {
    rows: HashMap<usize, Place<M>>,
}

/// Where the states of a row lie, in the format of the file.
#[derive(Debug)]
struct Place<M: Machine> {
    /// With those of the rows that were given together.
    buffer: Arc<Buffer<M>>,
    /// Bytes before them.
    before: usize,
}

impl<M: Machine> HeldStates<M> {
    /// None.
    pub fn new() -> Self {
        Self { rows: HashMap::new() }
    }

    /// Whether there are those of this row of the file.
    pub fn has(&self, row: usize) -> bool {
        self.rows.contains_key(&row)
    }

    /// Frees them; returns whether there were any.
    pub fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.rows).is_empty()
    }

    /// The states of the prompts of a batch in f32, `[positions, width]`; what was given of them is held where
    /// there is room.
    pub fn complete(
        &mut self,
        kernels: &Kernels<M>,
        given: &Given,
        prompts: &Prompts<M>,
        offsets: &[usize],
        width: usize,
    ) -> Result<Buffer<M>, Trouble<M>> {
        let (bytes, format): (&[u8], _) = match &given.states {
            States::F16(states) => (bytemuck::cast_slice(states), Precision::F16),
            States::F32(states) => (bytemuck::cast_slice(states), Precision::F32),
        };
        let mut buffer = kernels.buffer(bytes.len().div_ceil(4))?;
        kernels.write(bytes, kernels.slice_mut(&mut buffer))?;
        let (buffer, mut before) = (Arc::new(buffer), 0);
        let mut new = HashMap::new();
        for prompt in &given.lacked {
            new.insert(given.rows[*prompt], Place { buffer: Arc::clone(&buffer), before });
            before += bytes_of(format) * (offsets[prompt + 1] - offsets[*prompt]) * width;
        }
        let from = given.rows.iter().map(|row| {
            let Place { buffer, before } = new.get(row).unwrap_or_else(|| &self.rows[row]);
            kernels.slice(buffer).skip(*before)
        });
        let mut states = kernels.buffer(prompts.positions() * width)?;
        let to = kernels.slice_mut(&mut states);
        kernels.gather_states(&to, &from.collect::<Vec<_>>(), format, prompts, offsets, width)?;
        if !new.is_empty() && kernels.machine().has_room()? {
            self.rows.extend(new);
        }
        Ok(states)
    }
}
