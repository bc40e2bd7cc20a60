//! Matrices that take the same input: queries, keys and values, or gate and up; in some files one matrix with their rows below each other.

use candle_core::{Result, Tensor};

use super::block::Step;
use super::gradients::Gradients;
use super::linear::{self, Linear, Part, Saved};

/// The matrices, and how wide what they give is cut.
#[derive(Debug)]
pub struct Group<const N: usize> {
    pub linears: Vec<Linear>,
    pub widths: [usize; N],
}

impl<const N: usize> Group<N> {
    /// What comes out, and what the way back needs.
    pub fn forward(&self, step: &Step<'_>, x: &Tensor) -> Result<([Tensor; N], Vec<Saved>)> {
        let both = self.linears.iter().map(|linear| linear::forward(step.compute, linear, step.parameters, x, step.pass));
        let (outputs, saved): (Vec<_>, Vec<_>) = both.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((self.cut(outputs)?, saved))
    }

    /// The gradient of `x` from those of what came out.
    pub fn backward(
        &self,
        step: &Step<'_>,
        (x, saved): (&Tensor, &[Saved]),
        dy: [Tensor; N],
        gradients: &mut Gradients<'_>,
    ) -> Result<Tensor> {
        let dy = if self.is_fused() { vec![Tensor::cat(&dy, 1)?] } else { Vec::from(dy) };
        let parts = self.linears.iter().zip(saved).zip(&dy);
        let parts: Vec<_> = parts.map(|((linear, saved), dy)| Part { linear, saved, x, dy }).collect();
        linear::backward(step.compute, &parts, step.parameters, step.pass, gradients)
    }

    fn is_fused(&self) -> bool {
        self.linears.len() < N
    }

    fn cut(&self, outputs: Vec<Tensor>) -> Result<[Tensor; N]> {
        let outputs = if let ([whole], true) = (outputs.as_slice(), self.is_fused()) {
            let mut start = 0;
            let part = |width: &usize| {
                start += width;
                whole.narrow(1, start - width, *width)?.contiguous()
            };
            self.widths.iter().map(part).collect::<Result<Vec<_>>>()?
        } else {
            outputs
        };
        let count = outputs.len();
        outputs.try_into().map_err(|_| candle_core::Error::Msg(format!("{count} matrices where {N} are needed")))
    }
}
