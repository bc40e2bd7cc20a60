//! The table of embeddings.

use candle_core::{DType, Result, Tensor};

use super::base::Rows;
use super::compute::Compute;
use super::gradients::Gradients;
use super::slices::numbers;
use super::vector;
use crate::jobs::finetune::learner::Tensors;

/// The table, in the file on every device: few of its rows are needed at a time.
#[derive(Debug)]
pub struct Embedding {
    pub rows: Rows,
    /// Rows are multiplied with this.
    pub scale: f32,
}

/// What its weight is called.
pub const NAME: &str = "token_embd.weight";

/// A row for each token.
pub fn forward(compute: &Compute, embedding: &Embedding, parameters: &Tensors, tokens: &[u32]) -> Result<Tensor> {
    let width = embedding.rows.columns();
    if let Some(table) = parameters.get(NAME) {
        let ids = Tensor::from_slice(tokens, tokens.len(), &compute.device)?;
        return compute.narrow(&(table.index_select(&ids, 0)? * f64::from(embedding.scale))?);
    }
    let mut out = vec![0.0; tokens.len() * width];
    for (&token, row) in tokens.iter().zip(out.chunks_exact_mut(width)) {
        let token = token as usize;
        embedding.rows.unpack(token..token + 1, row);
        vector::scale(row, embedding.scale);
    }
    compute.narrow(&compute.tensor(out, (tokens.len(), width))?)
}

/// Adds the gradient of the table, if it is trained.
pub fn backward(
    compute: &Compute,
    embedding: &Embedding,
    parameters: &Tensors,
    tokens: &[u32],
    dx: &Tensor,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let Some(table) = parameters.get(NAME) else { return Ok(()) };
    if compute.fused {
        let (width, dx) = (embedding.rows.columns(), numbers(dx)?);
        return gradients.edit(NAME, |sum| {
            for (&token, dx) in tokens.iter().zip(dx.chunks_exact(width)) {
                let token = token as usize;
                vector::add_scaled(&mut sum[token * width..(token + 1) * width], dx, embedding.scale);
            }
            Ok(())
        });
    }
    let ids = Tensor::from_slice(tokens, tokens.len(), &compute.device)?;
    let dx = (dx.to_dtype(DType::F32)? * f64::from(embedding.scale))?;
    gradients.add(NAME, &table.zeros_like()?.index_add(&ids, &dx, 0)?)
}
