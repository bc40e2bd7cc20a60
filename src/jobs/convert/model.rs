//! What is to be converted: its tensors, where their numbers come from, and its metadata as llama.cpp's converter would write them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::adapter::{Updates, export};
use super::config::{Config, Family};
use super::error::{Error, Result};
use super::folder::Folder;
use super::metadata::{General, Pairs, ROPE_ATTENTION_FACTOR, Size, parameters, pooling, rope_tensors};
use super::names::translated;
use super::options::{Options, Source};
use super::rows::{Rows, Store};
use super::safetensors::Weights;
use super::tensors::{self, Content, MAX_ROW, Tensor};
use super::tokenizer;
use crate::gguf::file_type::FileType;
use crate::gguf::{Header, Metadata, TensorKind};

#[derive(Debug)]
pub(super) struct Model {
    pub(super) rows: Rows,
    /// In the converter's order.
    tensors: Vec<Tensor>,
    metadata: Metadata,
    /// Whether matrices may be stored as what is asked for, rather than as what they are.
    staged: bool,
    /// An adapter's tensors stay in their order, and none is quantized.
    pub(super) is_adapter: bool,
}

impl Model {
    pub(super) fn open(options: &Options) -> Result<Self> {
        match (&options.source, &options.adapter) {
            (Source::Folder(path), adapter) => folder(path, adapter.as_deref(), options),
            (Source::Gguf(path), None) => gguf(path, options),
            (Source::Adapter { adapter, base }, None) => exported(adapter, base, options),
            (Source::Adapter { .. }, Some(_)) => Err(Error::Unsupported {
                what: "merging one adapter into another".to_owned(),
                supported: "one adapter at a time".to_owned(),
            }),
            (Source::Gguf(_), Some(_)) => Err(Error::Unsupported {
                what: "merging an adapter into a GGUF file".to_owned(),
                supported: "merging into the folder that the adapter was trained on".to_owned(),
            }),
        }
    }

    /// The tensors as the converter would hand them to llama-quantize for this type.
    pub(super) fn tensors(&self, file_type: FileType) -> Vec<Tensor> {
        let mut tensors = self.tensors.clone();
        if self.staged && !file_type.is_quantized() {
            for tensor in tensors.iter_mut().filter(|tensor| tensor.stage != TensorKind::F32) {
                tensor.stage = file_type.base();
            }
        }
        tensors
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Number of weights.
    pub(super) fn parameters(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// What the model is called.
    pub(super) fn name(&self) -> &str {
        self.metadata.str("general.name").unwrap_or("model")
    }
}

fn folder(path: &Path, adapter: Option<&Path>, options: &Options) -> Result<Model> {
    let folder = Folder::open(path)?;
    let config = Config::read(&folder)?;
    refuse_reranker(&folder, &config)?;
    let weights = Weights::open(&folder)?;
    let stage = tensors::usual_stage(&weights, config.family);
    let mut tensors = tensors::list(&weights, &config, stage, tokenizer::embedded(&folder, &config)?)?;
    let updates = adapter.map(|path| Updates::open(&Folder::open(path)?)).transpose()?;
    if let Some(updates) = &updates {
        updates.attach(&mut tensors, |name| translated(name, &config), &folder.name())?;
    }
    let metadata = metadata(&folder, &config, &tensors, stage, options)?;
    Ok(Model { rows: Rows { store: Store::Folder(weights), updates }, tensors, metadata, staged: true, is_adapter: false })
}

/// Its configuration is that of a model that writes, but llama.cpp wants another head on it.
fn refuse_reranker(folder: &Folder, config: &Config) -> Result<()> {
    let readme = folder.text("README.md")?.unwrap_or_default().to_lowercase();
    let named = folder.name().to_lowercase().contains("qwen3-reranker") || readme.contains("# qwen3-reranker");
    if config.family == Family::Qwen3 && named {
        return Err(Error::Unsupported {
            what: "a reranker (Qwen3-Reranker)".to_owned(),
            supported: "models that write, and that embed".to_owned(),
        });
    }
    Ok(())
}

fn metadata(folder: &Folder, config: &Config, tensors: &[Tensor], stage: TensorKind, options: &Options) -> Result<Metadata> {
    let count = tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add);
    let architecture = config.family.architecture();
    let mut pairs = Pairs::default();
    pairs.string("general.architecture", architecture);
    if let Some(factor) = rope_tensors(config)?.1 {
        pairs.f32(format!("{architecture}.{ROPE_ATTENTION_FACTOR}"), factor);
    }
    pairs.string("general.type", "model");
    General::read(folder, config, Size::Model(count), options.name.as_deref())?.write(&mut pairs);
    let file_type = if stage == TensorKind::BF16 { FileType::BF16 } else { FileType::F16 };
    parameters(&mut pairs, config, file_type.code());
    if let (Family::Qwen2 | Family::Qwen3, Some(pooling)) = (config.family, pooling(folder)?) {
        pairs.u32(format!("{architecture}.pooling_type"), pooling.into());
    }
    pairs.u32("general.quantization_version", 2);
    tokenizer::write(&mut pairs, folder, config, options.pre_tokenizer.as_deref())?;
    Ok(pairs.into_metadata())
}

fn exported(adapter: &Path, base: &Path, options: &Options) -> Result<Model> {
    let (weights, tensors, metadata) = export(adapter, base, options.name.as_deref())?;
    Ok(Model { rows: Rows { store: Store::Folder(weights), updates: None }, tensors, metadata, staged: true, is_adapter: true })
}

fn gguf(path: &Path, options: &Options) -> Result<Model> {
    let wrong = |source| Error::Gguf { path: path.to_owned(), source };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let header = Header::read(BufReader::with_capacity(256 << 10, &file)).map_err(wrong)?;
    refuse_parts(path, &header.metadata)?;
    let tensors = header.tensors.iter().map(|tensor| Tensor {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        stage: tensor.kind,
        content: Content::Gguf { start: tensor.offset, kind: tensor.kind },
    });
    let tensors: Vec<Tensor> = tensors.collect();
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.row() > MAX_ROW) {
        return Err(Error::Impossible(format!("tensor {} has rows of {} numbers, more than {MAX_ROW}", tensor.name, tensor.row())));
    }
    let mut metadata = header.metadata;
    if let Some(name) = &options.name {
        metadata.set("general.name", crate::gguf::Value::String(name.clone()));
    }
    let store = Store::Gguf { path: path.to_owned(), file };
    Ok(Model { rows: Rows { store, updates: None }, tensors, metadata, staged: false, is_adapter: false })
}

pub(in crate::jobs) fn refuse_parts(path: &Path, metadata: &Metadata) -> Result<()> {
    let what = match (metadata.str("general.type"), metadata.u32("split.count")) {
        (Some("adapter"), _) => "a GGUF file that holds an adapter",
        (_, Some(2..)) => "a GGUF file that is one of several",
        _ => return Ok(()),
    };
    Err(Error::Unsupported { what: format!("{what} ({})", path.display()), supported: "whole models in one file".to_owned() })
}
