//! How a text is cut into words before BPE, by the name under which llama.cpp knows it.
//!
//! llama.cpp's converter encodes a test text and looks the ids' hash up, which works for unchanged vocabularies of known models only.
//! Here the rules themselves are compared: the patterns in `tokenizer.json`, and whether a text begins with a token of its own.
//! That gives the same names, for fine-tuned vocabularies too. Rules that are not known are an error, never a silent guess.

use serde_json::Value;

use super::super::error::{Error, Result, shown};
use super::json::TokenizerJson;

/// Contractions, words, numbers of up to three digits, the rest.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with one digit at a time.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words end where lower case turns to upper.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Every name that can come out.
pub(super) const NAMES: [&str; 8] = ["llama-bpe", "smaug-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "gpt-4o", "smollm", "gpt-2"];

/// The name, or what the user says it is.
pub(super) fn name(json: &TokenizerJson, told: Option<&str>) -> Result<String> {
    if let Some(told) = told {
        return Ok(told.to_owned());
    }
    let found = json.pre_tokenizer.as_ref().and_then(steps).and_then(|steps| known(&steps, json));
    found.map(str::to_owned).ok_or_else(|| Error::Unsupported {
        what: format!("the pre-tokenizer of tokenizer.json ({})", described(json.pre_tokenizer.as_ref())),
        supported: format!(
            "{}; if it is one that llama.cpp knows under another name, give that name as the pre-tokenizer",
            NAMES.join(", ")
        ),
    })
}

/// One thing that is done to a text.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Split(&'a str),
    EachDigit,
    /// GPT-2's own pattern, then bytes.
    WordsAndBytes,
    Bytes,
}

/// What is done in turn; `None` if any of it is something else.
fn steps(pre: &Value) -> Option<Vec<Step<'_>>> {
    let kind = pre.get("type")?.as_str()?;
    let flag = |key: &str, unsaid| pre.get(key).and_then(Value::as_bool).unwrap_or(unsaid);
    let step = match kind {
        "Sequence" => {
            let parts: Option<Vec<_>> = pre.get("pretokenizers")?.as_array()?.iter().map(steps).collect();
            return Some(parts?.into_iter().flatten().collect());
        }
        "Split" if pre.get("behavior").and_then(Value::as_str) == Some("Isolated") && !flag("invert", false) => {
            Step::Split(pre.get("pattern")?.get("Regex")?.as_str()?)
        }
        "Split" if pre.get("behavior").and_then(Value::as_str) == Some("Removed") && flag("invert", false) => {
            Step::Split(pre.get("pattern")?.get("Regex")?.as_str()?)
        }
        "Digits" if flag("individual_digits", false) => Step::EachDigit,
        "ByteLevel" if flag("use_regex", true) => Step::WordsAndBytes,
        "ByteLevel" => Step::Bytes,
        _ => return None,
    };
    Some(vec![step])
}

fn known(steps: &[Step], json: &TokenizerJson) -> Option<&'static str> {
    let begins = adds_first(json);
    Some(match steps {
        [Step::Split(LLAMA3), Step::Bytes] if begins || json.model.ignore_merges == Some(true) => "llama-bpe",
        [Step::Split(LLAMA3), Step::Bytes] => "smaug-bpe",
        [Step::Split(QWEN2), Step::Bytes] if begins => "deepseek-r1-qwen",
        [Step::Split(QWEN2), Step::Bytes] => "qwen2",
        [Step::Split(TEKKEN), Step::Bytes] => "tekken",
        [Step::Split(GPT_4O), Step::Bytes] => "gpt-4o",
        [Step::EachDigit, Step::WordsAndBytes] => "smollm",
        [Step::WordsAndBytes] => "gpt-2",
        _ => return None,
    })
}

/// Whether a text gets a token of its own before it.
fn adds_first(json: &TokenizerJson) -> bool {
    fn within(processor: &Value) -> bool {
        let first = processor.get("single").and_then(|single| single.get(0));
        let nested = processor.get("processors").and_then(Value::as_array);
        first.is_some_and(|first| first.get("SpecialToken").is_some()) || nested.is_some_and(|nested| nested.iter().any(within))
    }
    json.post_processor.as_ref().is_some_and(within)
}

fn described(pre: Option<&Value>) -> String {
    pre.map_or_else(|| "there is none".to_owned(), |pre| shown(&pre.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(pre: &Value, more: &Value) -> TokenizerJson {
        let mut whole = json!({"pre_tokenizer": pre, "model": {"type": "BPE"}});
        for (key, value) in more.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).expect("sound")
    }

    fn split(pattern: &str) -> Value {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})
    }

    #[test]
    fn every_known_rule_has_its_name() {
        let single = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}]);
        let begins = json!({"post_processor": {"type": "TemplateProcessing", "single": single}});
        let within = json!({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, begins["post_processor"]]}});
        for (pre, more, expected) in [
            (split(LLAMA3), json!({"model": {"type": "BPE", "ignore_merges": true}}), "llama-bpe"),
            (split(LLAMA3), within.clone(), "llama-bpe"),
            (split(LLAMA3), json!({}), "smaug-bpe"),
            (split(QWEN2), json!({"post_processor": {"type": "ByteLevel"}}), "qwen2"),
            (split(QWEN2), begins.clone(), "deepseek-r1-qwen"),
            (split(TEKKEN), begins, "tekken"),
            (split(GPT_4O), json!({}), "gpt-4o"),
            (json!({"type": "ByteLevel", "use_regex": true}), json!({}), "gpt-2"),
            (
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel"}]}),
                json!({}),
                "smollm",
            ),
        ] {
            assert_eq!(name(&tokenizer(&pre, &more), None).expect("known"), expected);
        }
    }

    #[test]
    fn an_unknown_rule_is_refused_with_what_to_do_and_can_be_named() {
        for pre in [Value::Null, json!({"type": "Whitespace"}), split(r"\w+")] {
            let tokenizer = tokenizer(&pre, &json!({}));
            let error = name(&tokenizer, None).expect_err("unknown").to_string();
            assert!(error.contains("qwen2") && error.contains("give that name"), "{error}");
            assert_eq!(name(&tokenizer, Some("exaone")).expect("told"), "exaone");
        }
    }
}
