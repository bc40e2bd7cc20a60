//! The training engine: a decoder over frozen weights that gives log-probabilities and their gradients.
//!
//! Every operation has a hand-written way back (vector-Jacobian product); nothing is recorded, and frozen weights get no gradient. Layers
//! are run one by one: what is kept of them on the way there is [`settings::Checkpointing`]'s choice. On the CPU operations are loops of
//! this crate over slices; on NVIDIA GPUs they are kernels of this crate where those know what is asked for ([`offload`]); elsewhere they
//! are composed of candle's. Promises: on the CPU the same call gives the same numbers to the bit,
//! on any number of threads and whatever is kept; scores of attention and logits are never whole; the file's weights are never changed.
//! It does not choose what is read, and does not change parameters: that is the trainer's.

mod algebra;
mod attention;
mod base;
mod block;
mod compute;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod distill;
mod dropout;
mod embedding;
mod error;
mod gated;
mod gradients;
mod group;
mod linear;
mod loading;
mod loss;
mod memory;
mod norm;
#[cfg(feature = "cuda")]
mod offload;
mod passes;
mod products;
mod rope;
pub mod settings;
mod slices;
mod teacher;
#[cfg(test)]
mod tests;
mod trainable;
mod vector;

use std::path::Path;

use candle_core::Device;

use crate::gguf::Header;
use crate::lm::Config;
use crate::lm::rope::Ropes;
use crate::lm::weights::Source;

use super::learner::Tensors;
use block::Block;
use compute::Compute;
use embedding::Embedding;
use linear::Linear;
use loading::Loader;
use loss::Head;
use norm::Norm;
use teacher::Teacher;
use trainable::Weight;

#[cfg(feature = "cuda")]
pub use device::uuid;
pub use device::{forget_peak, peak_bytes};
pub use error::{Error, Result};
pub use gradients::{Gradients, check_finite};
pub use memory::{Extent, Memory};
pub use settings::{Checkpointing, Lora, Method, Precision, Settings};
pub use trainable::Trainable;

/// A model that can be trained.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    settings: Settings,
    compute: Compute,
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    head: Head,
    ropes: Ropes,
    trainable: Vec<Trainable>,
    weights_bytes: u64,
    teacher: Option<Teacher>,
    #[cfg(feature = "cuda")]
    offload: Option<offload::Offload>,
}

impl Engine {
    /// Takes the model at `path` into use, whose header has been read.
    ///
    /// # Errors
    /// When the model is not supported or broken, the settings make no sense or name what it does not have, or the device fails.
    pub fn load(path: &Path, header: &Header, device: Device, settings: &Settings) -> Result<Self> {
        let compute = Compute::on(device, settings)?;
        #[cfg(feature = "cuda")]
        if compute.device.is_cuda() && offload::suits(&compute.device, header, &Config::from_header(header)?, settings) {
            return Self::offloaded(&Source::open(path, header)?, header, settings, compute);
        }
        Self::load_with(&Source::open(path, header)?, header, settings, compute)
    }

    /// As [`Engine::load`], with a teacher for [`Learner::distill`]. Kernels know no teachers: on a GPU it is done by candle's operations.
    ///
    /// # Errors
    /// As [`Engine::load`], and a teacher of another vocabulary.
    pub fn load_taught((path, header): (&Path, &Header), teacher: (&Path, &Header), device: Device, settings: &Settings) -> Result<Self> {
        let compute = Compute::on(device, settings)?;
        let teacher = Teacher::load(&Source::open(teacher.0, teacher.1)?, teacher.1, settings, compute.clone())?;
        Self::load_with(&Source::open(path, header)?, header, settings, compute)?.taught_by(teacher)
    }

    fn taught_by(mut self, teacher: Teacher) -> Result<Self> {
        teacher.expect_vocabulary(self.config.vocab_size)?;
        self.teacher = Some(teacher);
        Ok(self)
    }

    /// Frozen weights stay mapped for what is read of them seldom; the GPU gets its own.
    #[cfg(feature = "cuda")]
    fn offloaded(source: &Source, header: &Header, settings: &Settings, compute: Compute) -> Result<Self> {
        let mut engine = Self::load_with(source, header, settings, Compute::cpu())?;
        engine.offload = Some(offload::Offload::new(&engine, &compute.device)?);
        engine.compute = compute;
        Ok(engine)
    }

    /// What such passes would take on the CPU, without reading the weights.
    ///
    /// # Errors
    /// As [`Engine::load_taught`].
    pub fn survey(
        (path, header): (&Path, &Header),
        teacher: Option<(&Path, &Header)>,
        settings: &Settings,
        extent: Extent,
    ) -> Result<Memory> {
        let settings = Settings { precision: Precision::Single, ..settings.clone() };
        let mut engine = Self::load_with(&Source::open_unread(path, header)?, header, &settings, Compute::cpu())?;
        if let Some((path, header)) = teacher {
            let teacher = Teacher::load(&Source::open_unread(path, header)?, header, &settings, Compute::cpu())?;
            engine = engine.taught_by(teacher)?;
        }
        engine.predicted(extent)
    }

    fn load_with(source: &Source, header: &Header, settings: &Settings, compute: Compute) -> Result<Self> {
        if let Method::Lora(lora) = &settings.method {
            lora.check()?;
        }
        products::read_in_place();
        let config = Config::from_header(header)?;
        let loader = Loader { compute: &compute, config: &config, header, source, settings };
        let mut engine = Self {
            embedding: loader.embedding()?,
            blocks: (0..config.block_count).map(|layer| loader.block(layer)).collect::<Result<_>>()?,
            norm: loader.norm("output_norm.weight".to_owned(), config.embedding_length)?,
            head: loader.head()?,
            ropes: Ropes::load(&config, header, source)?,
            trainable: Vec::new(),
            weights_bytes: header.tensors.iter().map(|tensor| tensor.size_bytes).sum(),
            settings: settings.clone(),
            config,
            compute,
            teacher: None,
            #[cfg(feature = "cuda")]
            offload: None,
        };
        engine.trainable = engine.list_trainable()?;
        Ok(engine)
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Names and shapes of all parameters.
    #[must_use]
    pub fn trainable(&self) -> &[Trainable] {
        &self.trainable
    }

    /// What adapters are multiplied with, by the name of their matrix (`blk.0.attn_q`).
    pub fn scales(&self) -> impl Iterator<Item = (&str, f32)> {
        self.linears().filter(|linear| self.adapts(linear).is_some()).map(|linear| (linear.name.as_str(), linear.scale))
    }

    /// First values of all parameters, the same for the same seed: adapters that change nothing yet, and weights as the file has them.
    ///
    /// # Errors
    /// What the device says.
    pub fn init(&self, seed: u64) -> Result<Tensors> {
        let mut all = Tensors::new();
        for linear in self.linears() {
            trainable::init_adapter(&self.compute, linear, &self.trainable, seed, &mut all)?;
        }
        for (name, weight) in self.weights().into_iter().filter(|(name, _)| trainable::is_whole(&self.settings.method, name)) {
            all.insert(name.to_owned(), trainable::init_whole(&self.compute, &weight)?);
        }
        Ok(all)
    }

    fn adapts(&self, linear: &Linear) -> Option<&Lora> {
        trainable::is_adapted(&self.settings.method, &linear.name)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(Block::linears).chain(std::iter::once(&self.head.linear))
    }

    /// All weights that can be trained themselves.
    fn weights(&self) -> Vec<(&str, Weight<'_>)> {
        let mut all = Vec::new();
        for linear in self.linears() {
            all.push((linear.names.weight.as_str(), Weight::Matrix(&linear.base, [linear.outputs, linear.inputs])));
            all.extend(linear.bias.as_ref().map(|bias| (linear.names.bias.as_str(), Weight::Vector(bias))));
        }
        let norms = self.blocks.iter().flat_map(Block::norms).chain(std::iter::once(&self.norm));
        all.extend(norms.map(|norm| (norm.name.as_str(), Weight::Vector(&norm.weight))));
        if self.head.linear.names.weight != embedding::NAME {
            let shape = [self.config.vocab_size, self.config.embedding_length];
            all.push((embedding::NAME, Weight::Table(&self.embedding.rows, shape)));
        }
        all
    }

    fn list_trainable(&self) -> Result<Vec<Trainable>> {
        let weights = self.weights();
        // A head that is the table of embeddings has no matrix of its own that an adapter could be for.
        let own = self.linears().filter(|linear| linear.names.weight != embedding::NAME);
        let matrices: Vec<_> = own.map(|linear| linear.name.as_str()).collect();
        let names: Vec<_> = weights.iter().map(|(name, _)| *name).collect();
        if let Some(pattern) = loading::unmatched(&self.settings, &matrices, &names) {
            return Err(Error::NoTarget { pattern: pattern.to_owned(), known: known(&matrices) });
        }
        let adapters = self.linears().filter_map(|linear| Some(trainable::adapter(linear, self.adapts(linear)?)));
        let mut all: Vec<_> = adapters.flatten().collect();
        let whole = weights.iter().filter(|(name, _)| trainable::is_whole(&self.settings.method, name));
        all.extend(whole.map(|(name, weight)| Trainable { name: (*name).to_owned(), shape: weight.shape() }));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// Names of matrices, for messages: those of the first block stand for the others'.
fn known(matrices: &[&str]) -> String {
    let of_first = |name: &&&str| !name.starts_with("blk.") || name.starts_with("blk.0.");
    matrices.iter().filter(of_first).copied().collect::<Vec<_>>().join(", ")
}
