//! Passes of the whole model: to log-probabilities, and back to gradients.

use candle_core::{Tensor, bail};

use super::block::{self, Step, Tape};
use super::loss::{self, Lesson};
use super::rope::Turns;
use super::{Engine, Gradients, embedding, norm, trainable};
use crate::jobs::finetune::batch::Batch;
#[cfg(feature = "cuda")]
use crate::jobs::finetune::learner::Update;
use crate::jobs::finetune::learner::{Distilled, Learner, Pass, Tensors};
use crate::jobs::finetune::options::Distill;

/// What is kept of a layer on the way there.
enum Kept {
    Input(Tensor),
    Tape(Box<Tape>),
}

impl Engine {
    fn step<'a>(&'a self, parameters: &'a Tensors, batch: &'a Batch, pass: Option<Pass>) -> Step<'a> {
        let turns = |sliding| Turns::new(&self.config, &self.ropes, sliding, batch);
        Step { compute: &self.compute, parameters, pass, starts: &batch.starts, everywhere: turns(false), sliding: turns(true) }
    }

    /// What every pass begins with: the rest takes it for granted.
    pub(super) fn check(&self, parameters: &Tensors, batch: &Batch) -> candle_core::Result<()> {
        trainable::check(&self.trainable, parameters)?;
        let vocab_size = self.config.vocab_size;
        let tokens = batch.tokens.iter().chain(batch.labels.iter().map(|label| &label.token));
        if let Some(token) = tokens.clone().find(|token| **token as usize >= vocab_size) {
            bail!("the token {token} is outside the vocabulary of {vocab_size}");
        }
        if let Some(label) = batch.labels.iter().find(|label| label.place >= batch.len()) {
            bail!("a label is foretold from place {} of {} tokens", label.place, batch.len());
        }
        Ok(())
    }

    /// The rows of `x` that labels are foretold from.
    fn places(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        let places = batch.labels.iter().map(|label| u32::try_from(label.place)).collect::<std::result::Result<Vec<_>, _>>();
        let places = places.map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(places, batch.labels.len(), &self.compute.device)
    }

    /// The lowest layer that something is trained in or below.
    fn lowest(&self, parameters: &Tensors) -> usize {
        if parameters.contains_key(embedding::NAME) {
            return 0;
        }
        let layer = |name: &String| name.strip_prefix("blk.")?.split('.').next()?.parse().ok();
        parameters.keys().filter_map(layer).min().unwrap_or(self.blocks.len())
    }

    /// Behind the last norm, the rows that labels are foretold from.
    pub(super) fn hidden(&self, parameters: &Tensors, batch: &Batch) -> candle_core::Result<Tensor> {
        let step = self.step(parameters, batch, None);
        let mut x = embedding::forward(&self.compute, &self.embedding, parameters, &batch.tokens)?;
        for block in &self.blocks {
            x = block::output(&step, block, &x)?;
        }
        let rows = x.index_select(&self.places(batch)?, 0)?;
        norm::forward(&self.compute, &self.norm, parameters, &rows)
    }

    /// Through the head and back, to the gradient of the last layer's output.
    fn foretell(
        &self,
        step: &Step<'_>,
        (batch, lesson): (&Batch, Option<&Lesson<'_>>),
        x: &Tensor,
        gradients: &mut Gradients<'_>,
    ) -> candle_core::Result<(Distilled, Tensor)> {
        let places = self.places(batch)?;
        let rows = x.index_select(&places, 0)?;
        let hidden = norm::forward(&self.compute, &self.norm, step.parameters, &rows)?;
        let (found, d_hidden) =
            loss::backward(&self.compute, &self.head, step.parameters, (&hidden, &batch.labels, lesson), step.pass, gradients)?;
        let d_rows = norm::backward(&self.compute, &self.norm, step.parameters, &rows, &d_hidden, None, gradients)?;
        Ok((found, x.zeros_like()?.index_add(&places, &d_rows, 0)?))
    }

    /// There and back, by the operations that know everything. Of the teacher, where there is a lesson, only its head is still to be asked.
    fn learn(
        &self,
        parameters: &Tensors,
        (batch, lesson): (&Batch, Option<&Lesson<'_>>),
        pass: Option<Pass>,
        mut gradients: Gradients<'_>,
    ) -> candle_core::Result<Distilled> {
        let step = self.step(parameters, batch, pass);
        let lowest = self.lowest(parameters);
        let mut x = embedding::forward(&self.compute, &self.embedding, parameters, &batch.tokens)?;
        let mut kept = Vec::with_capacity(self.blocks.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            x = if layer < lowest {
                block::output(&step, block, &x)?
            } else if self.settings.checkpointing.keeps(layer) {
                let (output, tape) = block::forward(&step, block, &x)?;
                kept.push(Kept::Tape(Box::new(tape)));
                output
            } else {
                let output = block::output(&step, block, &x)?;
                kept.push(Kept::Input(x));
                output
            };
        }
        let (found, mut dx) = self.foretell(&step, (batch, lesson), &x, &mut gradients)?;
        drop(x);
        for block in self.blocks[lowest..].iter().rev() {
            dx = match kept.pop() {
                Some(Kept::Tape(tape)) => block::backward(&step, block, *tape, &dx, &mut gradients)?,
                Some(Kept::Input(x)) => block::backward_again(&step, block, &x, &dx, &mut gradients)?,
                None => bail!("a layer was not kept"),
            };
        }
        embedding::backward(&self.compute, &self.embedding, parameters, &batch.tokens, &dx, &mut gradients)?;
        Ok(found)
    }
}

impl Learner for Engine {
    fn log_probs(&self, parameters: &Tensors, batch: &Batch) -> candle_core::Result<Vec<f32>> {
        self.check(parameters, batch)?;
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            return offload.log_probs(self, parameters, batch);
        }
        if batch.labels.is_empty() {
            return Ok(Vec::new());
        }
        loss::log_probs(&self.compute, &self.head, parameters, &self.hidden(parameters, batch)?, &batch.labels)
    }

    fn accumulate(
        &self,
        parameters: &Tensors,
        batch: &Batch,
        pass: Option<Pass>,
        gradients: &mut Tensors,
    ) -> candle_core::Result<Vec<f32>> {
        self.check(parameters, batch)?;
        let gradients = Gradients::new(gradients, parameters)?;
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            return offload.accumulate(self, parameters, batch, pass, gradients.all());
        }
        if batch.labels.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.learn(parameters, (batch, None), pass, gradients)?.log_probs)
    }

    fn distill(
        &self,
        parameters: &Tensors,
        batch: &Batch,
        how: Distill,
        pass: Option<Pass>,
        gradients: &mut Tensors,
    ) -> candle_core::Result<Distilled> {
        let Some(teacher) = &self.teacher else { bail!("the model was loaded without a teacher") };
        self.check(parameters, batch)?;
        let gradients = Gradients::new(gradients, parameters)?;
        if batch.labels.is_empty() {
            return Ok(Distilled::default());
        }
        // Before the model itself is read, so that what either takes for a layer is not there at the same time.
        let lesson = teacher.lesson(batch, how)?;
        self.learn(parameters, (batch, Some(&lesson)), pass, gradients)
    }

    #[cfg(feature = "cuda")]
    fn squares(&self, tensors: &[&Tensor]) -> candle_core::Result<Option<Vec<f64>>> {
        let device = &self.compute.device;
        device.is_cuda().then(|| super::offload::squares_of(device, tensors)).transpose()
    }

    #[cfg(feature = "cuda")]
    fn step_in_place(&self, update: &Update, tensors: [&Tensor; 4]) -> candle_core::Result<bool> {
        let device = &self.compute.device;
        if device.is_cuda() {
            super::offload::step(device, update, tensors)?;
        }
        Ok(device.is_cuda())
    }
}
