//! Tiny models of every family against what llama.cpp's own tools made of them (`tests/golden/convert.py`).

mod golden;
mod merging;
mod misuse;
mod requantizing;
#[cfg(feature = "embedded")]
mod running;
mod weighing;
pub(in crate::jobs) mod weights;
