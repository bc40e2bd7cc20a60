//! Tiny models with weights that are numbers of a generator, in memory only as long as a test.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use crate::gguf::writer::Writer;
use crate::gguf::{Header, TensorKind, quants};
use crate::jobs::finetune::batch::{Batch, Row};
use crate::jobs::finetune::engine::compute::{Compute, activations};
use crate::jobs::finetune::engine::teacher::Teacher;
use crate::jobs::finetune::engine::{Engine, Settings};
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::finetune::rng::{Philox, Purpose};
use crate::lm::weights::Source;

/// What a model is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub architecture: &'static str,
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_length: usize,
    pub layers: usize,
    pub vocab: usize,
    pub window: Option<u32>,
    pub tied: bool,
    pub kind: TensorKind,
}

pub const QWEN: Shape = Shape {
    architecture: "qwen2",
    width: 32,
    inner: 64,
    heads: 4,
    kv_heads: 2,
    head_length: 8,
    layers: 2,
    vocab: 96,
    window: None,
    tied: true,
    kind: TensorKind::F32,
};

pub const LLAMA: Shape = Shape { architecture: "llama", tied: false, window: Some(5), ..QWEN };

/// With norms of queries, keys and outputs, a window, caps, and an embedding that is scaled.
pub const GEMMA: Shape = Shape { architecture: "gemma2", window: Some(4), layers: 3, ..QWEN };

/// With matrices in one.
pub const PHI: Shape = Shape { architecture: "phi3", tied: false, ..QWEN };

/// Numbers around 0 that are the same each time.
pub fn noise(which: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Philox::new(11).stream(Purpose::Order, [which, 0, 0, 0]).fill_uniform(&mut numbers);
    numbers.iter().map(|number| (number - 0.5) * 2.0 * scale).collect()
}

struct File {
    writer: Writer,
    count: u64,
    kind: TensorKind,
}

impl File {
    fn tensor(&mut self, name: &str, dimensions: &[usize]) {
        let count: usize = dimensions.iter().product();
        self.count += 1;
        let is_norm = name.contains("norm");
        // Wide models would otherwise have scores of which only the largest counts.
        #[expect(clippy::cast_precision_loss, reason = "a width")]
        let scale = if dimensions.len() == 1 { 0.3 } else { 0.3 * (32.0 / dimensions[0].max(32) as f32).sqrt() };
        let numbers: Vec<f32> =
            noise(self.count, count, scale).into_iter().map(|number| if is_norm { 1.0 + number } else { number }).collect();
        let kind = if dimensions.len() == 1 { TensorKind::F32 } else { self.kind };
        let shape: Vec<u64> = dimensions.iter().map(|&n| n as u64).collect();
        let writer = std::mem::take(&mut self.writer).tensor(name, kind, &shape);
        self.writer = writer;
        let size = usize::try_from(kind.size_bytes(&shape).unwrap()).unwrap();
        let start = self.writer.data.len() - size;
        quants::encode(kind, &numbers, dimensions[0], None, &mut self.writer.data[start..]).unwrap();
    }
}

/// The bytes of a model.
pub fn bytes(shape: Shape) -> Vec<u8> {
    let key = |name: &str| format!("{}.{name}", shape.architecture);
    let number = |n: usize| u32::try_from(n).unwrap();
    let mut writer = Writer::default()
        .str("general.architecture", shape.architecture)
        .u32(&key("block_count"), number(shape.layers))
        .u32(&key("context_length"), 128)
        .u32(&key("embedding_length"), number(shape.width))
        .u32(&key("feed_forward_length"), number(shape.inner))
        .u32(&key("attention.head_count"), number(shape.heads))
        .u32(&key("attention.head_count_kv"), number(shape.kv_heads))
        .u32(&key("attention.key_length"), number(shape.head_length))
        .u32(&key("attention.value_length"), number(shape.head_length))
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6);
    if let Some(window) = shape.window {
        writer = writer.u32(&key("attention.sliding_window"), window);
    }
    if shape.architecture == "gemma2" {
        writer = writer.f32(&key("attn_logit_softcapping"), 0.7).f32(&key("final_logit_softcapping"), 2.0);
    }
    let mut file = File { writer, count: 0, kind: shape.kind };
    file.tensor("token_embd.weight", &[shape.width, shape.vocab]);
    for layer in 0..shape.layers {
        block(&mut file, shape, layer);
    }
    file.tensor("output_norm.weight", &[shape.width]);
    if !shape.tied {
        file.tensor("output.weight", &[shape.width, shape.vocab]);
    }
    file.writer.finish()
}

fn block(file: &mut File, shape: Shape, layer: usize) {
    let name = |part: &str| format!("blk.{layer}.{part}");
    let (query, kv) = (shape.heads * shape.head_length, shape.kv_heads * shape.head_length);
    file.tensor(&name("attn_norm.weight"), &[shape.width]);
    file.tensor(&name("ffn_norm.weight"), &[shape.width]);
    if shape.architecture == "phi3" {
        file.tensor(&name("attn_qkv.weight"), &[shape.width, query + 2 * kv]);
        file.tensor(&name("ffn_up.weight"), &[shape.width, 2 * shape.inner]);
    } else {
        for (part, rows) in [("attn_q", query), ("attn_k", kv), ("attn_v", kv)] {
            file.tensor(&name(&format!("{part}.weight")), &[shape.width, rows]);
            if shape.architecture == "qwen2" {
                file.tensor(&name(&format!("{part}.bias")), &[rows]);
            }
        }
        file.tensor(&name("ffn_gate.weight"), &[shape.width, shape.inner]);
        file.tensor(&name("ffn_up.weight"), &[shape.width, shape.inner]);
    }
    if shape.architecture == "gemma2" {
        file.tensor(&name("attn_q_norm.weight"), &[shape.head_length]);
        file.tensor(&name("attn_k_norm.weight"), &[shape.head_length]);
        file.tensor(&name("post_attention_norm.weight"), &[shape.width]);
        file.tensor(&name("post_ffw_norm.weight"), &[shape.width]);
    }
    file.tensor(&name("attn_output.weight"), &[query, shape.width]);
    file.tensor(&name("ffn_down.weight"), &[shape.inner, shape.width]);
}

/// A model in a folder that goes with it.
pub struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    pub fn new(shape: Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes(shape)).unwrap();
        Self { _folder: folder, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn engine(&self, settings: &Settings) -> Engine {
        Engine::load(&self.path, &Header::read_file(&self.path).unwrap(), Device::Cpu, settings).unwrap()
    }

    /// As on an accelerator.
    pub fn composed(&self, settings: &Settings) -> Engine {
        let (source, header) = self.source();
        Engine::load_with(&source, &header, settings, composing(settings)).unwrap()
    }

    /// One that learns from another.
    pub fn taught(&self, teacher: &Self, settings: &Settings) -> Engine {
        let [own, theirs] = [self, teacher].map(|place| Header::read_file(&place.path).unwrap());
        Engine::load_taught((&self.path, &own), (&teacher.path, &theirs), Device::Cpu, settings).unwrap()
    }

    /// As on an accelerator.
    pub fn taught_composed(&self, teacher: &Self, settings: &Settings) -> Engine {
        let (source, header) = teacher.source();
        let teacher = Teacher::load(&source, &header, settings, composing(settings)).unwrap();
        self.composed(settings).taught_by(teacher).unwrap()
    }

    fn source(&self) -> (Source, Header) {
        let header = Header::read_file(&self.path).unwrap();
        (Source::open(&self.path, &header).unwrap(), header)
    }
}

fn composing(settings: &Settings) -> Compute {
    Compute { device: Device::Cpu, fused: false, dtype: activations(false, settings) }
}

/// Parameters away from where training begins, so that no gradient is 0 for want of another.
pub fn perturbed(engine: &Engine) -> Tensors {
    let moved = |(index, (name, tensor)): (u64, (String, Tensor))| {
        let scale = if name.contains("lora") { 0.3 } else { 0.05 };
        let noise = Tensor::from_vec(noise(1_000 + index, tensor.elem_count(), scale), tensor.shape(), &Device::Cpu).unwrap();
        (name, (tensor + noise).unwrap())
    };
    (0..).zip(engine.init(3).unwrap()).map(moved).collect()
}

/// Rows of these lengths, of which all tokens but a few are foretold.
pub fn rows(vocab: u32, lengths: &[usize]) -> Vec<Row> {
    let row = |(index, length): (u32, &usize)| Row {
        tokens: (0..).take(*length).map(|i: u32| (i * i * 7 + i * 3 + index * 31) % vocab).collect(),
        weights: (0..).take(*length).map(|i: u8| if i % 4 == 3 { 0.0 } else { 0.25 + f32::from(i % 3) / 4.0 }).collect(),
    };
    (0..).zip(lengths).map(row).collect()
}

pub fn batch(rows: &[Row]) -> Batch {
    let mut batch = Batch::default();
    for row in rows {
        batch.push(row);
    }
    batch
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
