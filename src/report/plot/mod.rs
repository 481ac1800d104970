//! What charts are made of: scales, thinning, axes and the frame around a drawing.

mod figure;
mod frame;
mod scale;
mod thin;

pub(super) use figure::{Figure, Legend, data_table};
pub(super) use frame::{Frame, HEIGHT, WIDTH, px};
pub(super) use scale::Scale;
pub(super) use thin::{smoothed, thinned};
