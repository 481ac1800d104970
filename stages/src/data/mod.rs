//! The files that stages exchange, each with its reader and writer.
//!
//! File                          | Format                         | Module
//! ------------------------------|--------------------------------|----------------
//! reviews                       | one JSON object a line         | [`reviews`]
//! tokens                        | safetensors, `pipe.tokens.1`   | [`tokens`]
//! hidden                        | safetensors, `pipe.hidden.1`   | [`hidden`]
//! predictions                   | CSV                            | [`predictions`]
//! a folder                      | tar                            | [`folder`]
//!
//! Ragged safetensors files share the tensors of [`rows`], which say which review each row
//! is; [`tensor_file`] writes them, the same bytes for the same content.

pub mod difference;
pub mod folder;
pub mod hidden;
pub mod predictions;
pub mod reviews;
pub mod rows;
pub mod states;
pub mod tensor_file;
pub mod tokens;

pub use hidden::{Hidden, HiddenFormat, HiddenType, HiddenWriter};
pub use predictions::{Prediction, parse_predictions, read_predictions, write_predictions};
pub use reviews::{Review, read_reviews, write_reviews};
pub use rows::Rows;
pub use states::States;
pub use tokens::{Tokens, TokensFile};
