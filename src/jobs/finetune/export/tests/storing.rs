//! What survives in which format.

use std::fs;

use super::super::{LEAST_GAIN, MergeOptions, Merged, Storage, merge_gguf};
use super::made::{Made, adapters, bytes_of, converted, strengths, trained};
use crate::gguf::file_type::FileType;
use crate::gguf::{Header, TensorKind};

/// Merges a change of half a hundredth of the weights.
fn merged(file_type: FileType, storage: Storage, check: impl Fn(&Header, &[u8], &Header, &[u8])) -> Merged {
    let place = tempfile::tempdir().expect("a folder");
    let (_, base) = converted(place.path(), "Tiny-Llama-3-1M-Instruct", file_type);
    let (parameters, strengths) = (adapters(&base, Made { rank: 8, change: 0.005, magnitudes: false }), strengths(8));
    let options = MergeOptions { storage, ..MergeOptions::new(place.path().join("out.gguf")) };
    let merged = merge_gguf(&trained(&base, &parameters, &strengths), &options, &()).expect("merged");
    assert!(merged.survival.tensors.iter().all(|tensor| (tensor.change - 0.005).abs() < 5e-4), "{:?}", merged.survival);
    let read = |path| (Header::read_file(path).expect("sound"), fs::read(path).expect("read"));
    let (before, after) = (read(&base), read(&merged.path));
    check(&before.0, &before.1, &after.0, &after.1);
    merged
}

fn no_check(_: &Header, _: &[u8], _: &Header, _: &[u8]) {}

#[test]
fn of_a_base_of_four_bits_trained_tensors_get_eight_and_others_are_copied() {
    let merged = merged(FileType::Q4_K_M, Storage::Q8_0, |before, old, after, new| {
        for (before, after) in before.tensors.iter().zip(&after.tensors) {
            if before.name.starts_with("blk.") && before.dimensions.len() == 2 {
                assert_eq!(after.kind, TensorKind::Q8_0, "{}", before.name);
            } else {
                assert_eq!((before.kind, bytes_of(old, before)), (after.kind, bytes_of(new, after)), "{}", before.name);
            }
        }
        assert_eq!(after.file_type(), Some("Q8_0"));
    });
    assert!(merged.survival.passes() && merged.warnings.is_empty(), "{:?}", merged.survival.worst());
    assert_eq!(merged.file_type, "Q8_0");
}

#[test]
fn where_a_grid_swallows_the_change_a_finer_format_is_taken() {
    for file_type in [FileType::Q8_0, FileType::Q6_K, FileType::BF16, FileType::F16, FileType::Q5_K_M] {
        for storage in [Storage::Q8_0, Storage::Q6_K] {
            let merged = merged(file_type, storage, no_check);
            assert!(merged.survival.passes() && merged.warnings.is_empty(), "{file_type}: {:?}", merged.survival.worst());
        }
    }
}

#[test]
fn bases_on_a_grid_of_eight_or_six_bits_lose_small_changes_too() {
    for file_type in [FileType::Q8_0, FileType::Q6_K] {
        let merged = merged(file_type, Storage::AsBase, no_check);
        let mean = merged.survival.mean_gain().expect("trained");
        println!("{file_type} {mean}");
        assert!(mean < LEAST_GAIN && !merged.survival.passes(), "{file_type}: {mean}");
    }
}

#[test]
fn keeping_four_bits_is_done_when_it_is_demanded_and_told_with_the_share_that_is_lost() {
    let merged = merged(FileType::Q4_K_M, Storage::AsBase, |before, _, after, _| {
        assert!(before.tensors.iter().zip(&after.tensors).all(|(before, after)| before.kind == after.kind));
        assert_eq!(after.file_type(), Some("Q4_K_M"));
    });
    let worst = merged.survival.worst().expect("trained");
    assert!(worst.gain < 0.2 && !merged.survival.passes() && worst.gain < LEAST_GAIN);
    assert!(merged.warnings[0].contains("less than 0.95 of the change survives"), "{:?}", merged.warnings);
}
