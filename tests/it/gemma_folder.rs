//! The real Gemma 3 270M, there and back: its GGUF file taken apart into a folder as Hugging Face has it, and made into a GGUF file again.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arriero::gguf::file_type::FileType;
use arriero::gguf::{Header, TensorInfo, quants};
use arriero::jobs::convert::{Options, Source, Target, convert};
use arriero::lm::{Device, Model};
use serde_json::{Map, Value, json};

use crate::lm::perplexity;
use crate::support::demo_model;

const NAMES: [(&str, &str); 13] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// llama.cpp's name of a tensor in the words of transformers.
fn renamed(name: &str) -> String {
    match name {
        "token_embd.weight" => "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => "model.norm.weight".to_owned(),
        _ => {
            let (number, rest) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).expect("a layer");
            let theirs = NAMES.iter().find(|(ours, _)| rest.strip_suffix(".weight") == Some(*ours)).expect("a known tensor").1;
            format!("model.layers.{number}.{theirs}.weight")
        }
    }
}

/// The numbers of a tensor, as training would have left them: norms without the one that is added to them.
fn numbers(file: &[u8], tensor: &TensorInfo) -> Vec<f32> {
    let at = usize::try_from(tensor.offset).expect("small");
    let mut numbers = vec![0.0; usize::try_from(tensor.elements()).expect("small")];
    let bytes = &file[at..at + usize::try_from(tensor.size_bytes).expect("small")];
    quants::decode(tensor.kind, bytes, &mut numbers).expect("a known format");
    if tensor.name.contains("norm") {
        for number in &mut numbers {
            *number -= 1.0;
        }
    }
    numbers
}

/// To the nearest bfloat16, ties to even; norms are kept whole.
fn bytes_of(tensor: &TensorInfo, numbers: &[f32]) -> (&'static str, Vec<u8>) {
    if tensor.dimensions.len() == 1 {
        return ("F32", numbers.iter().flat_map(|number| number.to_le_bytes()).collect());
    }
    let rounded = |number: &f32| {
        let bits = number.to_bits();
        let half = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        u16::try_from(half & 0xffff).expect("16 bits").to_le_bytes()
    };
    ("BF16", numbers.iter().flat_map(rounded).collect())
}

fn write_weights(folder: &Path, file: &[u8], header: &Header) {
    let (mut entries, mut data) = (Map::new(), Vec::new());
    for tensor in &header.tensors {
        let (dtype, bytes) = bytes_of(tensor, &numbers(file, tensor));
        let shape: Vec<u64> = tensor.dimensions.iter().rev().copied().collect();
        entries
            .insert(renamed(&tensor.name), json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), data.len() + bytes.len()]}));
        data.extend(bytes);
    }
    let head = Value::Object(entries).to_string();
    let mut out = std::fs::File::create(folder.join("model.safetensors")).expect("made");
    out.write_all(&(head.len() as u64).to_le_bytes()).expect("written");
    out.write_all(head.as_bytes()).expect("written");
    out.write_all(&data).expect("written");
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(u8::try_from(number & 0x7f).expect("7 bits") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("7 bits"));
}

/// `tokenizer.model`, and the names of what stands in no text.
fn write_tokenizer(folder: &Path, header: &Header) {
    let metadata = &header.metadata;
    let tokens = metadata.strings("tokenizer.ggml.tokens").expect("a vocabulary");
    let (scores, kinds) =
        (metadata.f32s("tokenizer.ggml.scores").expect("there"), metadata.i32s("tokenizer.ggml.token_type").expect("there"));
    let (mut model, mut added) = (Vec::new(), Map::new());
    for (id, token) in tokens.iter().enumerate() {
        let mut piece = vec![0x0a];
        varint(token.len() as u64, &mut piece);
        piece.extend(token);
        piece.push(0x15);
        piece.extend(scores[id].to_le_bytes());
        piece.push(0x18);
        varint(u64::try_from(kinds[id]).expect("positive"), &mut piece);
        model.push(0x0a);
        varint(piece.len() as u64, &mut model);
        model.extend(piece);
        if [3, 4].contains(&kinds[id]) {
            added.insert(id.to_string(), json!({"content": String::from_utf8_lossy(token), "special": kinds[id] == 3}));
        }
    }
    std::fs::write(folder.join("tokenizer.model"), model).expect("written");
    let template = metadata.str("tokenizer.chat_template");
    let config = json!({"added_tokens_decoder": added, "bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>",
        "unk_token": "<unk>", "add_bos_token": true, "add_eos_token": false, "chat_template": template});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).expect("written");
}

fn write_config(folder: &Path, header: &Header) {
    let number = |key: &str| header.metadata.u64(&format!("gemma3.{key}")).expect("there");
    let real = |key: &str| header.metadata.f32(&format!("gemma3.{key}"));
    let token = |name: &str| header.metadata.u64(&format!("tokenizer.ggml.{name}_token_id"));
    let vocabulary = header.tensor("token_embd.weight").expect("there").dimensions[1];
    let config = json!({
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "torch_dtype": "bfloat16", "vocab_size": vocabulary,
        "hidden_size": number("embedding_length"), "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"), "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"), "head_dim": number("attention.key_length"),
        "max_position_embeddings": number("context_length"), "sliding_window": number("attention.sliding_window"),
        "bos_token_id": token("bos"), "eos_token_id": token("eos"), "pad_token_id": token("padding"), "rms_norm_eps": 1e-6, "rope_theta": real("rope.freq_base"), "rope_local_base_freq": 1e4,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
}

/// The folder, made of the demo model.
fn taken_apart(place: &Path) -> PathBuf {
    let path = demo_model();
    let (file, header) = (std::fs::read(&path).expect("read"), Header::read_file(&path).expect("a model"));
    let folder = place.join("gemma-3-270m");
    std::fs::create_dir(&folder).expect("made");
    write_weights(&folder, &file, &header);
    write_tokenizer(&folder, &header);
    write_config(&folder, &header);
    folder
}

#[test]
fn in_32_bits_the_engine_and_llama_cpp_are_equally_surprised() {
    let place = tempfile::tempdir().expect("a folder");
    let (folder, out) = (taken_apart(place.path()), place.path().join("gemma-f32.gguf"));
    let made = convert(&Options::new(Source::Folder(folder), FileType::F32, Target::File(out.clone())), &()).expect("converted");
    if let Some(kept) = std::env::var_os("ARRIERO_TEST_KEEP") {
        std::fs::copy(&out, PathBuf::from(kept).join("gemma-f32.gguf")).expect("kept");
    }
    let golden =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llamacpp_f32.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&golden).expect("JSON");
    assert_eq!(golden["model_sha256"], made[0].sha256, "llama.cpp was asked about another file: run tests/golden/llamacpp.py anew");
    let tokens: Vec<u32> = serde_json::from_value(golden["text"]["tokens"].clone()).expect("tokens");
    let expected = golden["text"]["perplexity"].as_f64().expect("a number");
    let device = Device::each_exact_cpu(2).pop().expect("at least the plain one");
    let found = perplexity(&Model::load(&out, &Header::read_file(&out).expect("a model"), &device).expect("loaded"), &tokens);
    println!("perplexity {found:.6}, llama.cpp {expected:.6}: {:+.5} % apart", (found / expected - 1.0) * 100.0);
    assert!((found / expected - 1.0).abs() < 0.0005, "perplexity {found} against {expected}");
}

#[test]
fn a_folder_of_the_real_model_becomes_a_file_with_the_very_numbers_and_words() {
    let path = demo_model();
    let (file, header) = (std::fs::read(&path).expect("read"), Header::read_file(&path).expect("a model"));
    let place = tempfile::tempdir().expect("a folder");
    let folder = taken_apart(place.path());
    let out = place.path().join("again.gguf");
    let made = convert(&Options::new(Source::Folder(folder), FileType::BF16, Target::File(out.clone())), &()).expect("converted");
    assert_eq!(made[0].parameters, header.parameters());

    let (again, again_header) = (std::fs::read(&out).expect("read"), Header::read_file(&out).expect("a model"));
    assert_eq!(again_header.tensors.len(), header.tensors.len());
    let mut different = String::new();
    for tensor in &header.tensors {
        let other = again_header.tensor(&tensor.name).expect(&tensor.name);
        let (_, wanted) = bytes_of(tensor, &numbers(&file, tensor));
        let (_, found) = bytes_of(other, &numbers(&again, other));
        if wanted != found {
            let _ = write!(different, "{} ", tensor.name);
        }
    }
    assert_eq!(different, "", "these have other numbers");
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.model", "tokenizer.chat_template"] {
        assert!(again_header.metadata.get(key) == header.metadata.get(key), "{key}");
    }

    // The engine, by which llama.cpp's figures are reached elsewhere, expects the same of it as of the file that it came from.
    let tokens: Vec<u32> = vec![2, 818, 5279, 529, 7001, 563];
    let expects = |path: &Path, header: &Header| {
        let model = Model::load(path, header, &Device::cpu(None)).expect("a model");
        let mut cache = model.new_cache(16).expect("room");
        arriero::lm::measure::largest(&model.forward(&tokens, &mut cache).expect("logits"))
    };
    assert_eq!(expects(&out, &again_header), expects(&path, &header));
}
