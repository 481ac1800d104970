//! The two forms of GELU that GPT-2 programs use.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which form of GELU the MLP applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The tanh form that GPT-2 was trained with: `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    #[default]
    GeluNew,
    /// The exact form, `x/2 · (1 + erf(x/√2))`.
    Gelu,
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::GeluNew => "gelu_new",
            Activation::Gelu => "gelu",
        })
    }
}

impl FromStr for Activation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "gelu_new" => Ok(Activation::GeluNew),
            "gelu" => Ok(Activation::Gelu),
            _ => Err(()),
        }
    }
}
