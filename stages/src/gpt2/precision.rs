//! To how many bits the factors of large matrix products are rounded.

use std::fmt;

use half::{bf16, f16};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The precision of products with the matrices of blocks and of attention, the same on every device.
///
/// Factors are rounded to it, each product is exact and sums are in f32: what tensor cores compute.
/// Norms, softmax, GELU, the residual stream, low-rank additions, trained parameters, their gradients
/// and moments are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 24 significant bits: nothing is rounded.
    #[default]
    F32,
    /// 11 significant bits, magnitudes up to 65,504.
    F16,
    /// 8 significant bits, magnitudes as of f32.
    Bf16,
}

impl Precision {
    /// The precision of products in the backward pass: gradients need the range of bf16.
    #[must_use]
    pub fn backward(self) -> Self {
        match self {
            Precision::F32 => Precision::F32,
            Precision::F16 | Precision::Bf16 => Precision::Bf16,
        }
    }

    /// `value` rounded to nearest, ties to even; past the largest magnitude it is infinite.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Precision::F32 => value,
            Precision::F16 => f16::from_f32(value).to_f32(),
            Precision::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        })
    }
}
