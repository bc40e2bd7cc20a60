//! Merged GGUF files against the same sums done plainly.

use std::cell::Cell;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::super::{Error, Lineage, MergeOptions, MergePlan, merge_gguf};
use super::made::{GOLDEN, Made, adapters, bytes_of, golden, numbers, parameter, read, strengths, trained};
use crate::gguf::Header;
use crate::jobs::convert::Progress;
use crate::jobs::finetune::learner::Tensors;

const SMALL: Made = Made { rank: 4, change: 0.05, magnitudes: false };

/// W + s·B·A in 64 bits, and with a magnitude each row scaled to it.
fn expected(base: &Path, parameters: &Tensors, name: &str, rank: usize) -> Vec<f64> {
    let (a, b) = (parameter(parameters, &format!("{name}.lora_a")), parameter(parameters, &format!("{name}.lora_b")));
    let width = a.len() / rank;
    let mut weights: Vec<f64> = read(base, &format!("{name}.weight")).into_iter().map(f64::from).collect();
    for (row, weights) in weights.chunks_exact_mut(width).enumerate() {
        for (column, weight) in weights.iter_mut().enumerate() {
            *weight += 2.0 * (0..rank).map(|at| f64::from(b[row * rank + at]) * f64::from(a[at * width + column])).sum::<f64>();
        }
        if let Some(magnitude) = parameters.get(&format!("{name}.magnitude")) {
            let length = weights.iter().map(|weight| weight * weight).sum::<f64>().sqrt();
            let magnitude = f64::from(magnitude.to_vec1::<f32>().expect("numbers")[row]);
            for weight in weights {
                *weight *= magnitude / length;
            }
        }
    }
    weights
}

fn check(name: &str, made: Made) {
    let place = tempfile::tempdir().expect("a folder");
    let (base, options) = (golden(name), MergeOptions::new(place.path().join("out.gguf")));
    let mut parameters = adapters(&base, made);
    let norm = numbers(99, 32);
    parameters.insert("output_norm.weight".into(), Tensor::from_slice(&norm, 32, &Device::Cpu).expect("made"));
    let strengths = strengths(made.rank);
    let trained = trained(&base, &parameters, &strengths);
    let merged = merge_gguf(&trained, &options, &()).expect("merged");

    let (before, after) = [&base, &merged.path].map(|path| (Header::read_file(path).expect("sound"), fs::read(path).expect("read"))).into();
    assert_eq!(before.0.tensors.len(), after.0.tensors.len());
    let mut changed = 0;
    for (old, new) in before.0.tensors.iter().zip(&after.0.tensors) {
        assert_eq!((&old.name, &old.dimensions, old.kind), (&new.name, &new.dimensions, new.kind));
        let module = old.name.strip_suffix(".weight").unwrap_or(&old.name);
        if old.name == "output_norm.weight" {
            assert_eq!(read(&merged.path, &old.name), norm);
        } else if parameters.contains_key(&format!("{module}.lora_a")) {
            changed += 1;
            let expected = expected(&base, &parameters, module, made.rank);
            for (found, expected) in read(&merged.path, &old.name).iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{name} {}: {found} {expected}", old.name);
            }
        } else {
            assert_eq!(bytes_of(&before.1, old), bytes_of(&after.1, new), "{name} {}", old.name);
        }
    }
    assert_eq!(merged.survival.tensors.len(), changed + 1);
    assert!(merged.survival.tensors.iter().all(|tensor| (tensor.gain - 1.0).abs() < 1e-9 && tensor.error < 1e-9));
    assert!(merged.warnings.is_empty() && merged.size_bytes == after.1.len() as u64);
}

#[test]
fn adapters_are_added_and_all_else_is_copied() {
    for name in GOLDEN {
        check(name, SMALL);
    }
}

#[test]
fn magnitudes_set_the_lengths_of_rows() {
    for name in ["mistral-window", "gemma3-window"] {
        check(name, Made { magnitudes: true, ..SMALL });
    }
}

#[test]
fn what_changes_nothing_is_copied_and_that_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let (base, strengths) = (golden("qwen2-biases"), strengths(4));
    let mut parameters = adapters(&base, Made { magnitudes: true, ..SMALL });
    for (name, parameter) in &mut parameters {
        if name.ends_with("lora_b") {
            *parameter = parameter.zeros_like().expect("zeros");
        } else if let Some(name) = name.strip_suffix(".magnitude") {
            let weights = read(&base, &format!("{name}.weight"));
            let rows = weights.chunks_exact(weights.len() / parameter.elem_count());
            let lengths: Vec<f32> = rows.map(|row| row.iter().map(|number| number * number).sum::<f32>().sqrt()).collect();
            *parameter = Tensor::from_slice(&lengths, lengths.len(), &Device::Cpu).expect("made");
        }
    }
    let options = MergeOptions::new(place.path().join("out.gguf"));
    let merged = merge_gguf(&trained(&base, &parameters, &strengths), &options, &()).expect("merged");
    assert!(merged.survival.tensors.is_empty() && merged.warnings[0].contains("changed nothing"), "{merged:?}");
    for tensor in &Header::read_file(&base).expect("sound").tensors {
        assert_eq!(read(&base, &tensor.name), read(&merged.path, &tensor.name));
    }
}

#[test]
fn strengths_by_matrix_and_by_the_root_of_the_rank_are_heeded() {
    let place = tempfile::tempdir().expect("a folder");
    let (base, options) = (golden("qwen2-biases"), MergeOptions::new(place.path().join("out.gguf")));
    let parameters = adapters(&base, SMALL);
    let mut strengths = strengths(4);
    strengths.rank_stabilized = true;
    strengths.alphas.insert("blk.1.ffn_up".into(), 2.0);
    merge_gguf(&trained(&base, &parameters, &strengths), &options, &()).expect("merged");
    // 8/√4 and 2/√4 in the place of 8/4.
    for (name, factor) in [("blk.0.ffn_up", 2.0), ("blk.1.ffn_up", 0.5)] {
        let before = read(&base, &format!("{name}.weight"));
        let (after, plain) = (read(&options.path, &format!("{name}.weight")), expected(&base, &parameters, name, 4));
        for ((before, after), plain) in before.iter().zip(after).zip(plain) {
            let wanted = f64::from(*before) + factor * (plain - f64::from(*before));
            assert!((f64::from(after) - wanted).abs() < 1e-6, "{name}: {after} {wanted}");
        }
    }
}

#[test]
fn the_file_says_what_it_is_and_came_from() {
    let place = tempfile::tempdir().expect("a folder");
    let base = golden("qwen2-biases");
    let (parameters, strengths) = (adapters(&base, SMALL), strengths(4));
    let mut options = MergeOptions::new(place.path().join("out.gguf"));
    options.lineage = Lineage {
        name: Some("Mine".into()),
        base_url: Some("https://example.com/base".into()),
        notes: [("data".to_owned(), "sha256:0".to_owned())].into(),
        ..Lineage::default()
    };
    let plan = MergePlan::new(&trained(&base, &parameters, &strengths), &options).expect("planned");
    let merged = plan.write(&()).expect("merged");
    assert_eq!((plan.size_bytes(), merged.file_type), (merged.size_bytes, "F32"));
    let metadata = Header::read_file(&merged.path).expect("sound").metadata;
    for (key, text) in [
        ("general.name", "Mine"),
        ("general.architecture", "qwen2"),
        ("general.base_model.0.repo_url", "https://example.com/base"),
        ("arriero.finetune.data", "sha256:0"),
    ] {
        assert_eq!(metadata.str(key), Some(text), "{key}");
    }
    assert_eq!((metadata.u32("general.base_model.count"), metadata.u32("general.file_type")), (Some(1), Some(0)));
}

/// Stops after so many reports.
struct StopsAfter(Cell<u32>);

impl Progress for StopsAfter {
    fn advanced(&self, done_bytes: u64, total_bytes: u64) {
        assert!(done_bytes <= total_bytes);
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn is_cancelled(&self) -> bool {
        self.0.get() == 0
    }
}

#[test]
fn half_a_file_is_never_left_and_threads_change_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let base = golden("gemma3-window");
    let (parameters, strengths) = (adapters(&base, SMALL), strengths(4));
    let trained = trained(&base, &parameters, &strengths);
    let mut options = MergeOptions::new(place.path().join("out.gguf"));
    for reports in [0, 1, 20] {
        assert!(merge_gguf(&trained, &options, &StopsAfter(Cell::new(reports))).expect_err("stopped").to_string().contains("cancelled"));
        assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 0, "{reports}");
    }
    options.overwrite = true;
    let [one, five] = [1, 5].map(|threads| {
        options.threads = NonZeroUsize::new(threads).expect("at least one");
        merge_gguf(&trained, &options, &()).expect("merged")
    });
    assert_eq!((one.sha256, one.survival), (five.sha256, five.survival));
}

#[test]
fn what_does_not_fit_is_refused_by_its_name() {
    let place = tempfile::tempdir().expect("a folder");
    let (base, strengths) = (golden("qwen2-biases"), strengths(4));
    let options = MergeOptions::new(place.path().join("out.gguf"));
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).expect("made");
    let refused = |change: &dyn Fn(&mut Tensors), what: &str| {
        let mut parameters = adapters(&base, SMALL);
        change(&mut parameters);
        let error = merge_gguf(&trained(&base, &parameters, &strengths), &options, &()).expect_err(what);
        assert!(matches!(error, Error::Parameter { .. } | Error::Files(_)) && error.to_string().contains(what), "{error}");
    };
    refused(&|all| drop(all.remove("blk.0.attn_q.lora_b")), "blk.0.attn_q.lora_a has no lora_b");
    refused(&|all| drop(all.insert("blk.9.attn_q.weight".into(), zeros(&[2, 2]))), "blk.9.attn_q.weight is none of");
    refused(&|all| drop(all.insert("blk.0.attn_q.weight".into(), zeros(&[32, 32]))), "as a whole and by an adapter");
    refused(&|all| drop(all.insert("output_norm.weight".into(), zeros(&[31]))), "is for a matrix of [31]");
    refused(&|all| drop(all.insert("blk.0.attn_q.lora_c".into(), zeros(&[1]))), "none of a known kind");
    refused(&|all| drop(all.insert("blk.0.attn_q.lora_b".into(), (zeros(&[32, 4]) + f64::NAN).expect("made"))), "went wrong");
    refused(&Tensors::clear, "nothing was trained");
    assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 0);
}
