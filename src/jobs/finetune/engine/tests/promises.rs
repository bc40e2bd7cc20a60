//! What the engine promises.

use candle_core::Tensor;

use super::models::{GEMMA, LLAMA, PHI, Place, QWEN, Shape, batch, perturbed, rows, values};
use super::numbers::{PASS, adapters, distance, everything, gradients, lora};
use crate::gguf::{Header, TensorKind};
use crate::jobs::finetune::batch::{Batch, Label, Row};
use crate::jobs::finetune::engine::{Checkpointing, Engine, Error, Lora, Method, Precision, Settings, check_finite};
use crate::jobs::finetune::learner::{Learner, Tensors};
use crate::lm::{self, Model};

fn bits(tensors: &Tensors) -> Vec<Vec<u32>> {
    tensors.values().map(|tensor| values(tensor).iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn packed_rows_are_as_rows_alone_and_accumulated_ones_as_one_batch() {
    for shape in [QWEN, LLAMA, GEMMA, PHI] {
        let engine = Place::new(shape).engine(&adapters(3));
        let (parameters, rows) = (perturbed(&engine), rows(96, &[9, 1, 70, 3]));
        let (together, whole) = gradients(&engine, &parameters, &batch(&rows), None);
        let (mut alone, mut sum) = (Vec::new(), Tensors::new());
        for row in rows.chunks(1) {
            alone.extend(engine.accumulate(&parameters, &batch(row), None, &mut sum).unwrap());
        }
        assert!(distance(&together, &alone) < 1e-6, "{}", shape.architecture);
        for (name, gradient) in &whole {
            let distance = distance(&values(gradient), &values(&sum[name]));
            assert!(distance < 2e-6, "{}: `{name}` differs by {distance}", shape.architecture);
        }
    }
}

#[test]
fn what_is_kept_and_how_many_threads_there_are_changes_no_bit() {
    for method in [Method::Lora(Lora { dropout: 0.2, ..lora(3) }), Method::Lora(Lora { dora: true, ..lora(2) }), everything().method] {
        for shape in [GEMMA, PHI, Shape { kind: TensorKind::Q8_0, ..QWEN }] {
            let place = Place::new(shape);
            let mut found = Vec::new();
            for checkpointing in [Checkpointing::Full, Checkpointing::Selective(1), Checkpointing::Off] {
                for threads in [1, 2, 3] {
                    let engine = place.engine(&Settings { method: method.clone(), checkpointing, ..Settings::default() });
                    let parameters = perturbed(&engine);
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let batch = batch(&rows(96, &[70, 9, 140]));
                    let (log_probs, gradients) = pool.install(|| gradients(&engine, &parameters, &batch, Some(PASS)));
                    found.push((log_probs.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits(&gradients)));
                }
            }
            assert!(found.iter().all(|other| *other == found[0]), "{} {method:?}", shape.architecture);
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient_even_from_a_batch_without_labels() {
    let engine = Place::new(GEMMA).engine(&everything());
    let parameters = engine.init(0).unwrap();
    assert_eq!(parameters.len(), engine.trainable().len());
    assert_eq!(parameters.len(), 1 + 1 + 3 * (7 + 6));
    let (log_probs, gradients) = gradients(&engine, &parameters, &Batch::default(), None);
    assert!(log_probs.is_empty() && gradients.keys().eq(parameters.keys()));
}

/// The base model, and adapters that have not been trained, are what the embedded engine serves.
#[test]
fn without_parameters_it_is_the_model_that_is_served() {
    for shape in [QWEN, LLAMA, GEMMA, PHI] {
        let place = Place::new(shape);
        let engine = place.engine(&Settings { method: Method::Lora(Lora { dora: true, ..lora(2) }), ..Settings::default() });
        let batch = batch(&rows(96, &[12]));
        let base = engine.log_probs(&Tensors::new(), &batch).unwrap();
        let adapted = engine.log_probs(&engine.init(1).unwrap(), &batch).unwrap();
        assert!(distance(&base, &adapted) < 1e-6, "{}", shape.architecture);
        let model = Model::load(place.path(), &Header::read_file(place.path()).unwrap(), &lm::Device::cpu(Some(1))).unwrap();
        let mut served = Vec::new();
        model
            .logits(&batch.tokens, |place, logits| {
                let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
                served
                    .extend(batch.labels.iter().filter(|label| label.place == place).map(|label| logits[label.token as usize] - sum.ln()));
            })
            .unwrap();
        assert!(distance(&base, &served) < 2e-3, "{}: {base:?} {served:?}", shape.architecture);
    }
}

/// A matrix that is trained itself, with the adapter's product added to it, is the matrix with the adapter.
#[test]
fn an_adapter_is_what_it_adds_to_the_matrix() {
    let place = Place::new(LLAMA);
    let (adapting, whole) = (place.engine(&adapters(3)), place.engine(&everything()));
    let parameters = perturbed(&adapting);
    let mut merged = whole.init(0).unwrap();
    for (name, scale) in adapting.scales() {
        let of = |what| &parameters[&format!("{name}.{what}")];
        let delta = (of("lora_b").matmul(of("lora_a")).unwrap() * f64::from(scale)).unwrap();
        let weight = format!("{name}.weight");
        merged.insert(weight.clone(), (&merged[&weight] + delta).unwrap());
    }
    let batch = batch(&rows(96, &[20]));
    let both = [adapting.log_probs(&parameters, &batch).unwrap(), whole.log_probs(&merged, &batch).unwrap()];
    assert!(distance(&both[0], &both[1]) < 2e-6);
}

#[test]
fn quantised_and_rounded_weights_are_unpacked_as_the_file_says() {
    for kind in [TensorKind::Q8_0, TensorKind::Q4_0, TensorKind::F16, TensorKind::BF16, TensorKind::Q4_K, TensorKind::Q6_K] {
        let (width, inner) = if kind.block_size() == 256 { (256, 256) } else { (32, 64) };
        let shape = Shape { kind, width, inner, head_length: width / 4, ..QWEN };
        let place = Place::new(shape);
        let (packed, whole) = (place.engine(&adapters(2)), place.engine(&Settings { method: Method::Full(Vec::new()), ..adapters(2) }));
        let (batch, unpacked) = (batch(&rows(96, &[11])), whole.init(0).unwrap());
        let parameters = perturbed(&packed);
        let both = [packed.log_probs(&Tensors::new(), &batch).unwrap(), whole.log_probs(&unpacked, &batch).unwrap()];
        assert!(distance(&both[0], &both[1]) < 2e-6, "{kind}");
        let composed = place.composed(&adapters(2));
        let (ours, theirs) = (gradients(&packed, &parameters, &batch, None).1, gradients(&composed, &parameters, &batch, None).1);
        for (name, gradient) in &ours {
            assert!(distance(&values(gradient), &values(&theirs[name])) < 2e-5, "{kind} `{name}`");
        }
    }
    let rounded = Place::new(QWEN).engine(&Settings { precision: Precision::Brain, ..adapters(2) });
    let exact = Place::new(QWEN).engine(&adapters(2));
    let batch = batch(&rows(96, &[11]));
    let both = [&rounded, &exact].map(|engine| engine.log_probs(&Tensors::new(), &batch).unwrap());
    assert!((1e-6..2e-2).contains(&distance(&both[0], &both[1])));
}

#[test]
fn the_file_is_not_changed() {
    let place = Place::new(QWEN);
    let before = std::fs::read(place.path()).unwrap();
    let engine = place.engine(&everything());
    let parameters = engine.init(0).unwrap();
    let first = bits(&parameters);
    gradients(&engine, &parameters, &batch(&rows(96, &[9])), None);
    assert_eq!(first, bits(&parameters));
    assert!(before == std::fs::read(place.path()).unwrap());
}

#[test]
fn dropout_drops_its_share_in_training_alone_and_otherwise_each_time() {
    let settings = Settings { method: Method::Lora(Lora { dropout: 0.5, ..lora(3) }), ..Settings::default() };
    let place = Place::new(QWEN);
    let (dropping, plain) = (place.engine(&settings), place.engine(&adapters(3)));
    let (parameters, batch) = (perturbed(&dropping), batch(&rows(96, &[20])));
    let read = [&dropping, &plain].map(|engine| engine.log_probs(&parameters, &batch).unwrap());
    assert_eq!(read[0], read[1]);
    let pass = |micro_batch| {
        gradients(
            &dropping,
            &parameters,
            &batch,
            Some(super::numbers::PASS).map(|pass| crate::jobs::finetune::learner::Pass { micro_batch, ..pass }),
        )
        .0
    };
    assert_eq!(pass(0), pass(0));
    assert!(pass(0) != pass(1) && pass(0) != read[0]);
    assert_eq!(gradients(&dropping, &parameters, &batch, None).0, read[0]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let place = Place::new(QWEN);
    let load = |lora| {
        let settings = Settings { method: Method::Lora(lora), ..Settings::default() };
        Engine::load(place.path(), &Header::read_file(place.path()).unwrap(), candle_core::Device::Cpu, &settings)
    };
    // The head of this one is its table of embeddings, which no adapter can be for.
    for wrong in ["attn_qkv", "token_embd", "lm_head"] {
        let target = load(Lora { targets: vec!["attn_q".to_owned(), wrong.to_owned()], ..lora(2) });
        assert!(matches!(target, Err(Error::NoTarget { pattern, .. }) if pattern == wrong));
    }
    let engine = load(lora(2)).unwrap();
    let said = |batch: &Batch, parameters: &Tensors| engine.log_probs(parameters, batch).unwrap_err().to_string();
    let good = batch(&rows(96, &[4]));
    assert!(said(&batch(&[Row { tokens: vec![1, 96], weights: vec![1.0; 2] }]), &Tensors::new()).contains("96"));
    let label = Label { place: 4, token: 0, weight: 1.0 };
    assert!(said(&Batch { labels: vec![label], ..good.clone() }, &Tensors::new()).contains("place 4"));
    let mut parameters = engine.init(0).unwrap();
    parameters.insert("blk.9.attn_q.lora_a".to_owned(), Tensor::zeros(3, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap());
    assert!(said(&good, &parameters).contains("blk.9.attn_q.lora_a"));
}

#[test]
fn what_is_not_finite_is_named() {
    let engine = Place::new(QWEN).engine(&adapters(2));
    let mut parameters = engine.init(0).unwrap();
    assert!(check_finite(&parameters).is_ok());
    let name = "blk.1.attn_v.lora_b";
    parameters.insert(name.to_owned(), (&parameters[name] + f64::NAN).unwrap());
    assert!(check_finite(&parameters).unwrap_err().to_string().contains(name));
    let (log_probs, gradients) = gradients(&engine, &parameters, &batch(&rows(96, &[4])), None);
    assert!(log_probs.iter().any(|value| value.is_nan()) && check_finite(&gradients).is_err());
}
