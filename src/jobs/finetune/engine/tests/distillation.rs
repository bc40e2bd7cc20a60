//! Learning from another model's opinions.

use super::models::{GEMMA, LLAMA, PHI, Place, QWEN, Shape, batch, perturbed, rows, values};
use super::numbers::{PASS, adapters, all_kinds, check_slopes, distance, everything, gradients, lora};
use crate::gguf::{Header, TensorKind};
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::engine::{Checkpointing, Engine, Extent, Lora, Method, Settings};
use crate::jobs::finetune::learner::{Distilled, Learner, Pass, Tensors};
use crate::jobs::finetune::options::Distill;

const HOW: Distill = Distill { alpha: 0.6, temperature: 1.7 };

fn distilled(engine: &Engine, parameters: &Tensors, batch: &Batch, how: Distill, pass: Option<Pass>) -> (Distilled, Tensors) {
    let mut gradients = Tensors::new();
    let found = engine.distill(parameters, batch, how, pass, &mut gradients).unwrap();
    (found, gradients)
}

/// The loss as the paper has it.
fn passed(how: Distill) -> impl Fn(&Engine, &Tensors, &Batch, Option<Pass>) -> (f64, Tensors) {
    move |engine, parameters, batch, pass| {
        let (found, gradients) = distilled(engine, parameters, batch, how, pass);
        let of = |(label, (own, far)): (&crate::jobs::finetune::batch::Label, (&f32, &f32))| {
            let taught = how.alpha * how.temperature * how.temperature * f64::from(*far);
            f64::from(label.weight) * (taught - (1.0 - how.alpha) * f64::from(*own))
        };
        (batch.labels.iter().zip(found.log_probs.iter().zip(&found.divergences)).map(of).sum(), gradients)
    }
}

#[test]
fn gradients_are_the_slopes_of_what_rows_and_teacher_say() {
    for (what, settings) in all_kinds() {
        let engine = Place::new(GEMMA).taught(&Place::new(LLAMA), &settings);
        check_slopes(&engine, &format!("{what} of gemma2"), passed(HOW));
    }
    for (shape, how) in [(QWEN, Distill { alpha: 1.0, temperature: 0.5 }), (PHI, Distill { alpha: 0.2, temperature: 6.0 })] {
        let engine = Place::new(shape).taught(&Place::new(GEMMA), &everything());
        check_slopes(&engine, shape.architecture, passed(how));
    }
}

#[test]
fn the_cpus_loops_give_what_candles_operations_give() {
    for (shape, teacher) in [(QWEN, GEMMA), (GEMMA, LLAMA), (LLAMA, QWEN)] {
        for (what, settings) in all_kinds() {
            let (place, teacher) = (Place::new(shape), Place::new(teacher));
            let engines = [place.taught(&teacher, &settings), place.taught_composed(&teacher, &settings)];
            let (parameters, batch) = (perturbed(&engines[0]), batch(&rows(96, &[9, 1, 14])));
            let [ours, theirs] = engines.map(|engine| distilled(&engine, &parameters, &batch, HOW, Some(PASS)));
            assert!(distance(&ours.0.log_probs, &theirs.0.log_probs) < 2e-6, "{what} of {}", shape.architecture);
            assert!(distance(&ours.0.divergences, &theirs.0.divergences) < 2e-5, "{what} of {}", shape.architecture);
            for (name, gradient) in &ours.1 {
                let distance = distance(&values(gradient), &values(&theirs.1[name]));
                assert!(distance < 3e-5, "{what} of {}: `{name}` differs by {distance}", shape.architecture);
            }
        }
    }
}

#[test]
fn a_teacher_that_agrees_leaves_the_rows_alone() {
    let place = Place::new(GEMMA);
    let (taught, plain) = (place.taught(&place, &adapters(2)), place.engine(&adapters(2)));
    let (parameters, batch) = (plain.init(3).unwrap(), batch(&rows(96, &[9, 14])));
    let (found, of_both) = distilled(&taught, &parameters, &batch, HOW, None);
    assert!(found.divergences.iter().all(|far| (0.0..1e-6).contains(far)), "{:?}", found.divergences);
    let (log_probs, of_rows) = gradients(&plain, &parameters, &batch, None);
    assert_eq!(found.log_probs, log_probs);
    for (name, gradient) in of_both {
        let share: Vec<f32> = values(&of_rows[&name]).iter().map(|value| 0.4 * value).collect();
        assert!(values(&gradient).iter().zip(&share).all(|(one, other)| (one - other).abs() < 1e-5), "{name}");
    }
}

#[test]
fn packing_accumulation_and_pieces_of_the_logits_change_nothing() {
    let (place, teacher) = (Place::new(QWEN), Place::new(LLAMA));
    let engine = place.taught(&teacher, &adapters(3));
    let (parameters, rows) = (perturbed(&engine), rows(96, &[9, 1, 70, 3]));
    let (together, whole) = distilled(&engine, &parameters, &batch(&rows), HOW, None);
    let (mut alone, mut sum) = (Vec::new(), Tensors::new());
    for row in rows.chunks(1) {
        alone.extend(engine.distill(&parameters, &batch(row), HOW, None, &mut sum).unwrap().divergences);
    }
    let pieces = place.taught(&teacher, &Settings { logits_bytes: 4 * 96 * 5, ..adapters(3) });
    let (of_pieces, in_pieces) = distilled(&pieces, &parameters, &batch(&rows), HOW, None);
    assert!(distance(&together.divergences, &alone) < 2e-6 && distance(&together.divergences, &of_pieces.divergences) < 1e-6);
    for (name, gradient) in &whole {
        assert!(distance(&values(gradient), &values(&sum[name])) < 3e-6, "{name}");
        assert!(distance(&values(gradient), &values(&in_pieces[name])) < 3e-6, "{name}");
    }
}

#[test]
fn what_is_kept_and_how_many_threads_there_are_changes_no_bit() {
    let (place, teacher) = (Place::new(Shape { kind: TensorKind::Q8_0, ..QWEN }), Place::new(Shape { kind: TensorKind::Q4_0, ..LLAMA }));
    let method = Method::Lora(Lora { dora: true, dropout: 0.2, ..lora(2) });
    let mut found = Vec::new();
    for checkpointing in [Checkpointing::Full, Checkpointing::Off] {
        for threads in [1, 3] {
            let engine = place.taught(&teacher, &Settings { method: method.clone(), checkpointing, ..Settings::default() });
            let (parameters, batch) = (perturbed(&engine), batch(&rows(96, &[70, 9, 140])));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (said, gradients) = pool.install(|| distilled(&engine, &parameters, &batch, HOW, Some(PASS)));
            let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let gradients: Vec<_> = gradients.values().map(|gradient| bits(values(gradient))).collect();
            found.push((bits(said.log_probs), bits(said.divergences), gradients));
        }
    }
    assert!(found.iter().all(|other| *other == found[0]));
}

#[test]
fn only_a_teacher_of_as_many_tokens_teaches() {
    let place = Place::new(QWEN);
    let batch = batch(&rows(96, &[9]));
    let alone = place.engine(&adapters(2));
    let parameters = perturbed(&alone);
    let refused = alone.distill(&parameters, &batch, HOW, None, &mut Tensors::new()).unwrap_err();
    assert!(refused.to_string().contains("without a teacher"), "{refused}");
    // One that is padded further knows nothing of its own tokens that counts.
    let padded = place.taught(&Place::new(Shape { vocab: 128, ..LLAMA }), &adapters(2));
    let found = distilled(&padded, &parameters, &batch, HOW, None).0;
    assert!(found.divergences.iter().all(|far| far.is_finite() && *far > 0.0));
    let small = Place::new(Shape { vocab: 64, ..LLAMA });
    let [own, theirs] = [&place, &small].map(|place| Header::read_file(place.path()).unwrap());
    let refused = Engine::load_taught((place.path(), &own), (small.path(), &theirs), candle_core::Device::Cpu, &adapters(2)).unwrap_err();
    assert!(refused.to_string().contains("it knows 64 tokens") && refused.to_string().contains("96"), "{refused}");
}

#[test]
fn memory_is_foretold_with_the_teachers() {
    let (place, teacher) = (Place::new(QWEN), Place::new(Shape { width: 256, inner: 1024, head_length: 64, ..LLAMA }));
    let [own, theirs] = [&place, &teacher].map(|place| Header::read_file(place.path()).unwrap());
    let survey = |teacher| Engine::survey((place.path(), &own), teacher, &adapters(2), Extent::whole(512, 64)).unwrap();
    let (alone, taught) = (survey(None), survey(Some((teacher.path(), &theirs))));
    let weights: u64 = theirs.tensors.iter().map(|tensor| tensor.size_bytes).sum();
    assert_eq!(taught.weights_bytes, alone.weights_bytes + weights);
    assert_eq!(taught.parameters_bytes, alone.parameters_bytes);
    // A layer of the teacher's over all tokens takes more than the learner does.
    assert!(taught.activations_bytes > alone.activations_bytes + 4 * 512 * 1024, "{taught:?} {alone:?}");
    assert_eq!(taught, place.taught(&teacher, &adapters(2)).predicted(Extent::whole(512, 64)).unwrap());
}
