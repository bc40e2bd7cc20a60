use super::super::file_type::FileType;
use super::super::{Metadata, TensorKind, Value};
use super::{ImatrixInfo, Model, choose, copied_metadata, order, quantized_metadata};

/// A model of the golden file.
#[derive(Default)]
struct Golden {
    name: String,
    model: Model,
    /// `#` stands for the number of each block.
    tensors: Vec<(String, Vec<u64>)>,
}

impl Golden {
    /// All tensors in the order of writing.
    fn expanded(&self) -> Vec<(String, Vec<u64>, TensorKind)> {
        let source = |dimensions: &[u64]| if dimensions.len() == 1 { TensorKind::F32 } else { TensorKind::BF16 };
        let (inner, outer): (Vec<_>, Vec<_>) = self.tensors.iter().partition(|(name, _)| name.contains('#'));
        let inner = (0..self.model.block_count)
            .flat_map(|block| inner.iter().map(move |(name, dimensions)| (name.replace('#', &block.to_string()), dimensions.clone())));
        let all = outer.into_iter().cloned().chain(inner);
        all.map(|(name, dimensions)| (name, dimensions.clone(), source(&dimensions))).collect()
    }
}

fn letter(kind: TensorKind) -> char {
    use TensorKind as K;
    let letters = [K::F32, K::F16, K::BF16, K::Q8_0, K::Q4_0, K::Q4_1, K::Q5_0, K::Q5_1, K::Q2_K, K::Q3_K, K::Q4_K, K::Q5_K, K::Q6_K];
    let at = letters.iter().chain(&[K::IQ4_NL, K::IQ4_XS]).position(|known| *known == kind).expect("a kind of the file");
    "FHB8abcd23456nx".chars().nth(at).expect("a letter")
}

#[test]
fn every_tensor_of_fifteen_models_gets_llama_quantizes_format() {
    let mut golden = Golden::default();
    let mut checked = 0;
    for line in include_str!("../../../tests/golden/types.txt").lines() {
        let words: Vec<_> = line.split(' ').collect();
        let number = |index: usize| words[index].parse().expect("a number");
        match words[0] {
            "model" => {
                let model = Model {
                    architecture: words[2].to_owned(),
                    block_count: number(3),
                    head_count: number(4),
                    head_count_kv: number(5),
                    expert_count: number(6),
                };
                golden = Golden { name: words[1].to_owned(), model, tensors: Vec::new() };
            }
            "tensor" => golden.tensors.push((words[1].to_owned(), words[2..].iter().map(|n| n.parse().expect("a number")).collect())),
            _ => {
                let tensors = golden.expanded();
                let names: Vec<_> = tensors.iter().map(|(name, ..)| name).collect();
                assert!(order(&names).is_sorted(), "{}", golden.name);
                let file_type: FileType = words[1].parse().expect("a type");
                let chosen: String = choose(file_type, &golden.model, &tensors, false).into_iter().map(letter).collect();
                assert_eq!(chosen, words[2], "{} {file_type}", golden.name);
                checked += chosen.len();
            }
        }
    }
    assert_eq!(checked, 69_616);
}

fn tensor(name: &str, row: u64) -> (String, Vec<u64>, TensorKind) {
    (name.to_owned(), vec![row, 4096], TensorKind::F16)
}

fn chosen(file_type: FileType, model: &Model, names: &[&str], has_importance: bool) -> Vec<TensorKind> {
    let tensors: Vec<_> = names.iter().map(|name| tensor(name, 4096)).collect();
    choose(file_type, model, &tensors, has_importance)
}

#[test]
fn a_70b_keeps_its_values_better() {
    let model =
        |blocks, kv| Model { architecture: "llama".into(), block_count: blocks, head_count: 64, head_count_kv: kv, expert_count: 0 };
    // Of sixteen, the fourth is none of those that get more anyway.
    let names: Vec<_> = (0..16).map(|block| format!("blk.{block}.attn_v.weight")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let fourth = |blocks, kv| chosen(FileType::Q4_K_M, &model(blocks, kv), &names, false)[3];
    assert_eq!((fourth(80, 8), fourth(80, 64), fourth(60, 8)), (TensorKind::Q5_K, TensorKind::Q4_K, TensorKind::Q4_K));
}

#[test]
fn eight_experts_have_rules_of_their_own() {
    let model = Model { architecture: "llama".into(), block_count: 32, head_count: 32, head_count_kv: 8, expert_count: 8 };
    let names = [
        "blk.8.attn_k.weight",
        "blk.8.attn_output.weight",
        "blk.8.attn_v.weight",
        "blk.8.ffn_down_exps.weight",
        "blk.8.ffn_gate_inp.weight",
    ];
    let kinds = chosen(FileType::Q4_K_M, &model, &names, false);
    // The block's number counts, not how many came before: the first would have got Q6_K.
    assert_eq!(kinds, [TensorKind::Q8_0, TensorKind::Q5_K, TensorKind::Q8_0, TensorKind::Q4_K, TensorKind::F16]);
}

#[test]
fn an_importance_matrix_changes_the_first_blocks() {
    let model = Model { architecture: "llama".into(), block_count: 8, head_count: 8, head_count_kv: 8, expert_count: 0 };
    let first = |file_type, has| chosen(file_type, &model, &["blk.0.ffn_down.weight"], has)[0];
    assert_eq!((first(FileType::Q4_0, false), first(FileType::Q4_0, true)), (TensorKind::Q4_0, TensorKind::Q4_1));
    assert_eq!((first(FileType::Q5_0, false), first(FileType::Q5_0, true)), (TensorKind::Q5_0, TensorKind::Q5_1));
    assert_eq!((first(FileType::IQ4_XS, false), first(FileType::IQ4_XS, true)), (TensorKind::Q5_K, TensorKind::IQ4_XS));
}

#[test]
fn rows_that_do_not_fit_fall_back() {
    let model = Model { architecture: "llama".into(), block_count: 80, ..Model::default() };
    let kinds = |file_type, row| choose(file_type, &model, &[tensor("output.weight", row), tensor("blk.70.attn_q.weight", row)], false);
    assert_eq!(kinds(FileType::Q4_K_M, 288), [TensorKind::Q8_0, TensorKind::Q5_0]);
    assert_eq!(kinds(FileType::Q4_K_M, 100), [TensorKind::F16, TensorKind::F16]);
    assert_eq!(kinds(FileType::BF16, 100), [TensorKind::BF16, TensorKind::BF16]);
    assert_eq!(kinds(FileType::IQ4_XS, 288), [TensorKind::Q8_0, TensorKind::IQ4_NL]);
    // Trailing dimensions of one do not make a matrix.
    assert_eq!(choose(FileType::Q4_0, &model, &[("x.weight", [32, 1], TensorKind::F32)], false), [TensorKind::F32]);
}

#[test]
fn blocks_come_after_the_rest_and_by_number() {
    let names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "blk.x", "blk.", "a"];
    let sorted: Vec<_> = order(&names).into_iter().map(|index| names[index]).collect();
    assert_eq!(sorted, ["a", "blk.", "blk.x", "output.weight", "blk.2.a", "blk.2.b", "blk.10.a"]);
}

#[test]
fn a_model_is_read_from_metadata() {
    let mut metadata = Metadata::default();
    metadata.push("general.architecture", Value::String("gemma3n".into()));
    metadata.push("gemma3n.block_count", Value::U32(30));
    metadata.push("gemma3n.attention.head_count", Value::I32s(vec![16, 8]));
    let model = Model::from_metadata(&metadata);
    assert_eq!((model.block_count, model.head_count, model.head_count_kv, model.expert_count), (30, 16, 16, 0));
    assert_eq!(Model::from_metadata(&Metadata::default()), Model::default());
}

#[test]
fn metadata_move_as_llama_quantize_moves_them() {
    let mut input = Metadata::default();
    input.push("general.file_type", Value::U32(1));
    input.push("split.no", Value::U16(0));
    input.push("tokens", Value::Strings([&b"a\0b"[..], b"c"].into_iter().collect()));
    assert_eq!(copied_metadata(&Metadata::default()), None);
    let imatrix = ImatrixInfo { file: "ü".repeat(100), dataset: None, entries: 3, chunks: 0 };
    let output = quantized_metadata(&input, FileType::Q4_K_M, Some(&imatrix));
    let keys: Vec<_> = output.iter().map(|(key, _)| key).collect();
    let expected =
        ["tokens", "general.quantization_version", "general.file_type", "quantize.imatrix.file", "quantize.imatrix.entries_count"];
    assert_eq!(keys, expected);
    assert_eq!(output.u32("general.file_type"), Some(15));
    assert_eq!(output.str("quantize.imatrix.file").map(str::len), Some(126));
    let tokens: Vec<_> = output.strings("tokens").expect("strings").iter().map(<[u8]>::to_vec).collect();
    assert_eq!(tokens, [b"a", b"c"]);
}
