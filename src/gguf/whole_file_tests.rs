//! A small model through everything: the files must be llama-quantize's to the byte.

use super::choose::{Model, choose, copied_metadata, order, quantized_metadata};
use super::file_type::FileType;
use super::golden::{bell, digest, golden, importance};
use super::imatrix::Imatrix;
use super::layout::Layout;
use super::quants::{decode, encode};
use super::writer::Writer;
use super::{Header, Metadata, TensorInfo, TensorKind, Value};

const EMBEDDING: u64 = 256;
const FEED: u64 = 288;
const WORDS: u64 = 96;
const KEYS: u64 = 64;
const LAYERS: u32 = 8;

/// As in `tests/golden/quants.py`.
fn shapes() -> Vec<(String, Vec<u64>)> {
    let mut shapes = vec![("token_embd.weight".to_owned(), vec![EMBEDDING, WORDS])];
    for layer in 0..LAYERS {
        let parts: [(&str, &[u64]); 9] = [
            ("attn_norm", &[EMBEDDING]),
            ("ffn_down", &[FEED, EMBEDDING]),
            ("ffn_gate", &[EMBEDDING, FEED]),
            ("ffn_up", &[EMBEDDING, FEED]),
            ("ffn_norm", &[EMBEDDING]),
            ("attn_k", &[EMBEDDING, KEYS]),
            ("attn_output", &[EMBEDDING, EMBEDDING]),
            ("attn_q", &[EMBEDDING, EMBEDDING]),
            ("attn_v", &[EMBEDDING, KEYS]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("blk.{layer}.{part}.weight"), shape.to_vec())));
    }
    shapes.push(("output_norm.weight".to_owned(), vec![EMBEDDING]));
    shapes.push(("output.weight".to_owned(), vec![EMBEDDING, WORDS]));
    shapes
}

fn metadata() -> Metadata {
    let words = 0..WORDS;
    let mut metadata = Metadata::default();
    metadata.push("general.architecture", Value::String("llama".into()));
    metadata.push("llama.block_count", Value::U32(LAYERS));
    metadata.push("llama.context_length", Value::U32(512));
    metadata.push("llama.embedding_length", Value::U32(256));
    metadata.push("llama.feed_forward_length", Value::U32(288));
    metadata.push("llama.attention.head_count", Value::U32(8));
    metadata.push("llama.attention.head_count_kv", Value::U32(2));
    metadata.push("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    metadata.push("general.file_type", Value::U32(1));
    metadata.push("tokenizer.ggml.model", Value::String("llama".into()));
    metadata.push("tokenizer.ggml.tokens", Value::Strings(words.clone().map(|i| format!("t{i}")).collect()));
    metadata.push("tokenizer.ggml.scores", Value::F32s(words.clone().map(|_| 0.0).collect()));
    metadata.push("tokenizer.ggml.token_type", Value::I32s(words.map(|_| 1).collect()));
    metadata.push("tokenizer.ggml.add_bos_token", Value::Bool(true));
    metadata
}

fn source() -> Vec<u8> {
    let kind = |shape: &[u64]| if shape.len() == 1 { TensorKind::F32 } else { TensorKind::F16 };
    let tensors = shapes().into_iter().map(|(name, shape)| (name, shape.clone(), kind(&shape))).collect();
    let layout = Layout::new(metadata(), tensors).expect("a layout");
    let mut file = layout.header().to_vec();
    for (index, tensor) in layout.tensors().iter().enumerate() {
        let count = usize::try_from(tensor.elements()).expect("small");
        let numbers: Vec<f32> = (0..count).map(|i| bell(1_000_000 * (index as u64 + 1), i) * 0.05).collect();
        put(&mut file, &layout, tensor, &numbers, None);
    }
    assert_eq!(file.len() as u64, layout.file_size_bytes());
    file
}

fn put(file: &mut Vec<u8>, layout: &Layout, tensor: &TensorInfo, numbers: &[f32], importance: Option<&[f32]>) {
    let mut bytes = vec![0; usize::try_from(tensor.size_bytes).expect("small")];
    let row = usize::try_from(tensor.dimensions[0]).expect("small");
    encode(tensor.kind, numbers, row, importance, &mut bytes).expect("packs");
    pad(file, layout, tensor, &bytes);
}

fn pad(file: &mut Vec<u8>, layout: &Layout, tensor: &TensorInfo, bytes: &[u8]) {
    assert_eq!((file.len() as u64, bytes.len() as u64), (tensor.offset, tensor.size_bytes));
    file.extend(bytes);
    file.resize(file.len() + usize::try_from(layout.padding_after(tensor.size_bytes)).expect("small"), 0);
}

/// What llama-quantize would make of the file; `None` for its `COPY`.
fn quantized(file: &[u8], file_type: Option<FileType>, imatrix: Option<(&str, &Imatrix)>) -> Vec<u8> {
    let header = Header::parse(file).expect("sound");
    let names: Vec<_> = header.tensors.iter().map(|tensor| &tensor.name).collect();
    let sources: Vec<_> = order(&names).into_iter().map(|index| &header.tensors[index]).collect();
    let tensors: Vec<_> = sources.iter().map(|tensor| (&tensor.name, &tensor.dimensions, tensor.kind)).collect();
    let model = Model::from_metadata(&header.metadata);
    let info = imatrix.map(|(file, imatrix)| imatrix.info(file));
    let (metadata, kinds) = match file_type {
        Some(kind) => (quantized_metadata(&header.metadata, kind, info.as_ref()), choose(kind, &model, &tensors, imatrix.is_some())),
        None => (copied_metadata(&header.metadata).expect("a type"), tensors.iter().map(|(.., kind)| *kind).collect()),
    };
    let list = tensors.iter().zip(kinds).map(|((name, dimensions, _), kind)| ((*name).clone(), (*dimensions).clone(), kind)).collect();
    let layout = Layout::new(&metadata, list).expect("a layout");
    let mut out = layout.header().to_vec();
    for (source, tensor) in sources.into_iter().zip(layout.tensors()) {
        let at = usize::try_from(source.offset).expect("small");
        let bytes = &file[at..][..usize::try_from(source.size_bytes).expect("small")];
        if source.kind == tensor.kind {
            pad(&mut out, &layout, tensor, bytes);
            continue;
        }
        let mut numbers = vec![0.0; usize::try_from(source.elements()).expect("small")];
        decode(source.kind, bytes, &mut numbers).expect("unpacks");
        let weights = imatrix.and_then(|(_, imatrix)| imatrix.for_tensor(&tensor.name, &tensor.dimensions).expect("fits"));
        put(&mut out, &layout, tensor, &numbers, weights);
    }
    out
}

fn weighted() -> Vec<(String, Vec<f32>)> {
    let matrices = shapes().into_iter().enumerate().filter(|(index, (_, shape))| shape.len() > 1 && *index > 0);
    matrices.map(|(index, (name, shape))| (name, importance(usize::try_from(shape[0]).expect("small"), 50 + index as u64))).collect()
}

fn legacy() -> Vec<u8> {
    let int = |n: usize| i32::try_from(n).expect("small").to_le_bytes();
    let text = |text: &str| [&int(text.len())[..], text.as_bytes()].concat();
    let mut file = int(weighted().len()).to_vec();
    for (name, values) in weighted() {
        file.extend([text(&name), int(3).to_vec(), int(values.len()).to_vec()].concat());
        file.extend(values.into_iter().flat_map(f32::to_le_bytes));
    }
    [file, int(5).to_vec(), text("words.txt")].concat()
}

fn modern() -> Vec<u8> {
    let mut writer = Writer::default().str("general.type", "imatrix").strings("imatrix.datasets", &["words.txt"]);
    writer = writer.u32("imatrix.chunk_count", 9).u32("imatrix.chunk_size", 512);
    for (name, values) in weighted() {
        let count = if name.contains("blk.2") { 0.0 } else { 7.0 };
        writer = with_numbers(writer, &format!("{name}.in_sum2"), &values);
        writer = with_numbers(writer, &format!("{name}.counts"), &[count]);
    }
    let length = writer.data.len().next_multiple_of(32);
    writer.data.resize(length, 0);
    writer.finish()
}

fn with_numbers(writer: Writer, name: &str, numbers: &[f32]) -> Writer {
    let mut writer = writer.tensor(name, TensorKind::F32, &[numbers.len() as u64, 1]);
    let start = writer.data.len() - 4 * numbers.len();
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    writer.data[start..].copy_from_slice(&bytes);
    writer
}

#[test]
fn whole_files_are_llama_quantizes() {
    let golden = golden();
    let expected = |name: &str| golden["files"][name].as_str().expect("a digest").to_owned();
    let (source, legacy, modern) = (source(), legacy(), modern());
    assert_eq!(digest(&source), expected("source"));
    assert_eq!(digest(&legacy), expected("legacy"));
    assert_eq!(digest(&modern), expected("modern"));
    let read = |bytes: &[u8]| Imatrix::read(std::io::Cursor::new(bytes)).expect("sound");
    let matrices = [("importance.dat", read(&legacy)), ("importance.gguf", read(&modern))];
    for key in golden["files"].as_object().expect("files").keys().skip(3) {
        let mut words = key.split(' ');
        let file_type = words.next().filter(|name| *name != "COPY").map(|name| name.parse().expect("a type"));
        let name = words.next();
        let imatrix = matrices.iter().find(|(file, _)| Some(*file) == name).map(|(file, imatrix)| (*file, imatrix));
        assert_eq!(digest(&quantized(&source, file_type, imatrix)), expected(key), "{key}");
    }
}

#[test]
fn a_file_in_this_layout_is_its_own_copy() {
    let once = quantized(&source(), Some(FileType::Q4_K_M), None);
    assert!(quantized(&once, None, None) == once);
}
