//! Comparing models: the real one with itself, and what cannot be compared.

use std::path::Path;
use std::sync::Mutex;

use arriero::jobs::check::{self, Error, Progress, Spec, Step, Thresholds};
use tokio_util::sync::CancellationToken;

use crate::support::demo_model;

fn spec(reference: &Path, candidate: &Path) -> Spec {
    Spec {
        window: 64,
        continuation_tokens: 4,
        time: false,
        prompts: vec!["1, 1, 2, 3, 5, 8, 13,".into()],
        ..Spec::new(candidate, reference)
    }
}

#[test]
fn a_model_differs_from_itself_by_nothing() {
    let (model, folder) = (demo_model(), tempfile::tempdir().expect("a folder"));
    let text = folder.path().join("text.txt");
    std::fs::write(
        &text,
        "=== prose\nThe ferry left at ten past six, while the harbour was still grey.\n=== numbers\n7 + 5 = 12. 6 * 7 = 42.\n",
    )
    .expect("written");
    let strict = Thresholds { max_divergence: Some(0.0), max_perplexity_ratio: Some(1.0), min_top_agreement: Some(1.0) };
    let spec = Spec { text: Some(text), thresholds: strict, ..spec(&model, &model) };
    let told = Mutex::new(Vec::new());
    let report =
        check::check(&spec, &|news: Progress| told.lock().expect("unpoisoned").push(news), &CancellationToken::new()).expect("a report");
    assert!(report.verdict.passed, "{:?}", report.verdict);
    let exact = |value: f64, wanted: f64| (value - wanted).abs() < f64::MIN_POSITIVE;
    assert!(exact(report.whole.divergence.value, 0.0) && exact(report.whole.divergence_max, 0.0));
    assert!(exact(report.whole.top_agreement.value, 1.0) && exact(report.whole.perplexity_ratio.value, 1.0));
    assert!(report.whole.perplexity.candidate.value > 1.0 && report.whole.tokens > 20);
    assert_eq!(report.kinds.iter().map(|kind| kind.kind.as_str()).collect::<Vec<_>>(), ["prose", "numbers"]);
    assert_eq!(report.prompts[0].equal_tokens, report.prompts[0].tokens);
    assert!(report.prompts[0].texts.candidate.contains("21"), "{:?}", report.prompts[0]);
    assert!(report.edges.len() == 5 && report.edges.iter().all(|edge| edge.passed), "{:?}", report.edges);
    let steps: Vec<Step> = told.into_inner().expect("unpoisoned").into_iter().map(|news| news.step).collect();
    for step in [Step::Loading, Step::Comparing, Step::Continuing, Step::Edges] {
        assert!(steps.contains(&step));
    }
    println!("{}", report.to_markdown());
}

#[test]
fn a_check_that_is_cancelled_ends() {
    let model = demo_model();
    let cancel = CancellationToken::new();
    let stop = |news: Progress| {
        if news.step == Step::Comparing {
            cancel.cancel();
        }
    };
    assert!(matches!(check::check(&spec(&model, &model), &stop, &cancel), Err(Error::Cancelled)));
}

#[test]
fn what_cannot_be_compared_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (missing, garbage) = (folder.path().join("missing.gguf"), folder.path().join("garbage.gguf"));
    std::fs::write(&garbage, b"GGUF\x03\0\0\0 not really").expect("written");
    for path in [&missing, &garbage] {
        let error = check::check(&spec(path, path), &|_| {}, &CancellationToken::new()).expect_err("no model");
        assert!(matches!(error, Error::Load { .. }) && error.to_string().contains("no model file"), "{error}");
        assert!(error.to_string().starts_with("the reference, "), "{error}");
    }
    let no_words = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_qwen2-biases.gguf");
    let error = check::check(&spec(&no_words, &no_words), &|_| {}, &CancellationToken::new()).expect_err("no vocabulary");
    assert!(matches!(error, Error::Load { .. }) && error.to_string().contains("tokenizer"), "{error}");
}
