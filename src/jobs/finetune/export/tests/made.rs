//! Bases, and parameters that fit them.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::super::{Strengths, Trained};
use crate::gguf::file_type::FileType;
use crate::gguf::quants::decode;
use crate::gguf::{Header, TensorInfo};
use crate::jobs::convert::tests::weights::model;
use crate::jobs::convert::{Options, Source, Target, convert};
use crate::jobs::finetune::learner::Tensors;

/// The tiny models of `tests/golden/lm_families.py`.
pub(super) const GOLDEN: [&str; 6] =
    ["llama-untied-gqa", "llama3-scaling-tied", "llama-linear-scaling", "mistral-window", "gemma3-window", "qwen2-biases"];
/// Those of `tests/golden/convert.py`, one of each family, with rows of 256 numbers and more.
pub(super) const FOLDERS: [&str; 8] =
    ["Tiny-Llama-3-1M-Instruct", "tiny-mistral-v0.1", "tiny-phi3", "tiny-gemma", "tiny-gemma2", "tiny-gemma3", "tiny-qwen2", "tiny-qwen3"];

pub(super) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/lm_{name}.gguf"))
}

/// The folder of a model, and the GGUF file that is made of it.
pub(super) fn converted(place: &Path, name: &str, file_type: FileType) -> (PathBuf, PathBuf) {
    let (folder, path) = (model(place, name), place.join(format!("{file_type}.gguf")));
    convert(&Options::new(Source::Folder(folder.clone()), file_type, Target::File(path.clone())), &()).expect("converted");
    (folder, path)
}

/// About normal numbers that depend on the seed alone.
#[expect(clippy::cast_precision_loss, reason = "18 bits")]
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let bell = |at: u64| {
        let mut z = (seed << 32 | at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let sum: u64 = (0..4).map(|k| (z >> (16 * k)) & 0xffff).sum();
        (sum.cast_signed() - 131_070) as f32 / 37_837.0
    };
    (0..count as u64).map(bell).collect()
}

/// How parameters are to be.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) rank: usize,
    /// How large the change is, over the size of the matrix.
    pub(super) change: f32,
    pub(super) magnitudes: bool,
}

/// Adapters for all matrices of all layers, with alpha 2r.
pub(super) fn adapters(base: &Path, made: Made) -> Tensors {
    let header = Header::read_file(base).expect("sound");
    let mut parameters = Tensors::new();
    for (index, tensor) in
        header.tensors.iter().enumerate().filter(|(_, tensor)| tensor.name.starts_with("blk.") && tensor.dimensions.len() == 2)
    {
        let (name, rank) = (tensor.name.strip_suffix(".weight").expect("a weight"), made.rank);
        let [width, rows] = [0, 1].map(|at| usize::try_from(tensor.dimensions[at]).expect("small"));
        let weights = read(base, &tensor.name);
        let size = |numbers: &[f32]| numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
        // The product of normal numbers has about the root of the rank in every place.
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let factor = made.change * size(&weights) / ((weights.len() * rank) as f32).sqrt() / 2.0;
        let seed = 10 * index as u64;
        let a = Tensor::from_vec(numbers(seed, rank * width), (rank, width), &Device::Cpu).expect("made");
        let b = numbers(seed + 1, rows * rank).into_iter().map(|number| factor * number).collect();
        let b = Tensor::from_vec(b, (rows, rank), &Device::Cpu).expect("made");
        if made.magnitudes {
            let noise = numbers(seed + 2, rows);
            let lengths = weights.chunks_exact(width).zip(noise).map(|(row, noise)| size(row) * (1.0 + 0.05 * noise)).collect();
            parameters.insert(format!("{name}.magnitude"), Tensor::from_vec(lengths, rows, &Device::Cpu).expect("made"));
        }
        parameters.insert(format!("{name}.lora_a"), a);
        parameters.insert(format!("{name}.lora_b"), b);
    }
    assert!(!parameters.is_empty());
    parameters
}

/// What [`adapters`] makes for a rank.
#[expect(clippy::cast_precision_loss, reason = "small")]
pub(super) fn strengths(rank: usize) -> Strengths {
    Strengths::new(2.0 * rank as f64, false)
}

pub(super) fn trained<'a>(base: &'a Path, parameters: &'a Tensors, strengths: &'a Strengths) -> Trained<'a> {
    Trained { base, parameters, strengths }
}

pub(super) fn bytes_of<'a>(file: &'a [u8], tensor: &TensorInfo) -> &'a [u8] {
    let [start, size] = [tensor.offset, tensor.size_bytes].map(|number| usize::try_from(number).expect("small"));
    &file[start..start + size]
}

/// The numbers of a tensor in a file.
pub(super) fn read(path: &Path, name: &str) -> Vec<f32> {
    let (header, bytes) = (Header::read_file(path).expect("sound"), fs::read(path).expect("read"));
    let tensor = header.tensor(name).expect("there");
    let mut numbers = vec![0.0; usize::try_from(tensor.elements()).expect("small")];
    decode(tensor.kind, bytes_of(&bytes, tensor), &mut numbers).expect("decoded");
    numbers
}

pub(super) fn parameter(parameters: &Tensors, name: &str) -> Vec<f32> {
    parameters[name].flatten_all().expect("flat").to_vec1().expect("numbers")
}
