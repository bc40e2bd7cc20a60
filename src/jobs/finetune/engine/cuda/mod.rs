//! The engine on NVIDIA GPUs: LoRA over frozen weights, plain ones in bf16 or quantised as a file has them (QLoRA), by kernels of our own
//! and cuBLAS.
//!
//! [`Decoder`] computes the same function as the operations that every device has, for the families and settings that [`Shape::check`]
//! takes, several times faster and in a fraction of the memory: activations of a layer live in memory that all layers share, adapters are
//! part of the widened weights (`linear`), what is dropped is counted out where it is used, attention never keeps scores, logits exist for a
//! few labels at a time. The same input gives the same bits.

mod activations;
mod attention;
mod block;
mod decoder;
mod error;
mod gpu;
mod head;
mod kernels;
mod linear;
mod packed;
pub mod pool;
mod product;
mod shape;
mod source;
mod table;
mod trace;

pub use activations::{Keep, Plan};
pub use block::{Block, Grads};
pub use decoder::{Decoder, Weights};
pub use error::{Error, Result};
pub use gpu::{Buffer, Gpu, Rows};
pub use kernels::{Angles, adamw, copy_block, squares};
pub use linear::{How, Linear, Pair, Wanted, drop_factors};
pub use packed::{Packed, Packing, Vocabulary};
pub use shape::{Gate, Pairing, Shape};
pub use table::Input;
