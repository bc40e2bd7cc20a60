use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cache::testing::{answer, finished, object};

fn key() -> Key {
    Key::from_bytes(&[7; 32]).expect("32 bytes")
}

fn full_answer() -> Answer {
    let finish = Finish {
        context: Some(vec![1, 2, 3]),
        usage: Usage { prompt_tokens: Some(5), cached_tokens: Some(2), completion_tokens: None },
        timing: Timing { total: Some(Duration::from_nanos(123_456_789)), load: None, prompt_eval: Some(Duration::ZERO), eval: None },
        remarks: Remarks {
            not_applied: vec![NotApplied { field: "options.num_gpu".into(), why: "there is no accelerator" }],
            truncated: Some(Truncated { prompt_tokens: 9, kept_tokens: 4 }),
            changed: vec![Change { field: "options.num_ctx".into(), from: Value::Null, to: json!(4096), why: "pinned" }],
        },
        extra: object(json!({"unknown": [1, {"a": null}]})),
        ..finished(FinishReason::Length)
    };
    let plain = answer(&["a", "", "ü\u{0}\n"], finish);
    let thought = Delta { thinking: "hm".into(), extra: object(json!({"logprobs": [0.25]})), ..Delta::default() };
    let first = Arc::new(Piece::new(Duration::from_micros(3), Event::Delta(thought)));
    Answer::new([first].into_iter().chain(plain.pieces().iter().cloned())).expect("whole")
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let answer = full_answer();
    let bytes = encode(&key(), &answer).expect("written");
    assert_eq!(decode(&key(), &bytes), Some(answer));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed_and_so_is_another_key() {
    let bytes = encode(&key(), &full_answer()).expect("written");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(decode(&key(), &damaged), None, "byte {at}");
        assert_eq!(decode(&key(), &bytes[..at]), None, "cut at {at}");
    }
    assert_eq!(decode(&Key::from_bytes(&[8; 32]).expect("32 bytes"), &bytes), None);
}

/// Bytes whose digest is right, whatever they are: what another version might have written.
fn sealed(content: &[u8]) -> Vec<u8> {
    [&[FORM][..], &digest(&key(), content), content].concat()
}

#[test]
fn content_that_is_no_answer_is_none() {
    for content in ["", "null", "{}", "[]", r#"{"pieces":[],"end":{}}"#, r#"{"pieces":[{"at_us":-1}]}"#] {
        assert_eq!(decode(&key(), &sealed(content.as_bytes())), None, "{content}");
    }
}

#[test]
fn sentences_are_learnt_once_and_not_without_end() {
    let one = sentence("a test's sentence").expect("short");
    assert!(std::ptr::eq(one, sentence("a test's sentence").expect("known")));
    assert_eq!(sentence(&"x".repeat(MAX_SENTENCE_BYTES + 1)), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(decode(&key(), &bytes), None);
        prop_assert_eq!(decode(&key(), &sealed(&bytes)), None);
    }

    #[test]
    fn any_texts_come_back(texts in prop::collection::vec(any::<String>(), 0..20)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer = answer(&texts, finished(FinishReason::Stop));
        let bytes = encode(&key(), &answer).expect("written");
        prop_assert_eq!(decode(&key(), &bytes), Some(answer));
    }
}
