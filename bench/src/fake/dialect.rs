//! The objects of `/api/generate` and `/api/chat`: pieces, the last one, and the whole.

use super::{answer::Said, gojson};
use crate::clock;
use serde_json::{Value, json};
use std::{fmt::Write as _, time::Duration};

/// The figures of the final object.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub reason: &'static str,
    pub total: Duration,
    pub load: Duration,
    pub prompt_tokens: usize,
    /// Told by later versions only.
    pub cached: Option<usize>,
    pub prompt: Duration,
    pub tokens: usize,
    pub eval: Duration,
}

/// Which endpoint answers, and the spelling of the model it was asked for.
pub(super) struct Dialect {
    pub chat: bool,
    pub model: String,
    /// Tokens of the prompt, for the `context` of a final object; none for chat and raw.
    pub context: Option<Vec<u32>>,
    /// How many alternatives beside each token.
    pub logprobs: Option<usize>,
}

impl Dialect {
    fn begin(&self) -> String {
        let at = clock::rfc3339(clock::since_epoch());
        format!("{{\"model\":{},\"created_at\":\"{at}\",", gojson::quote(&self.model))
    }

    /// The answer so far: `response` and `thinking`, or a `message`.
    fn said(&self, content: &str, thinking: &str, call: Option<&Value>) -> String {
        let mut out = String::with_capacity(content.len() + 64);
        out.push_str(if self.chat { "\"message\":{\"role\":\"assistant\",\"content\":" } else { "\"response\":" });
        out.push_str(&gojson::quote(content));
        if !thinking.is_empty() {
            let _ = write!(out, ",\"thinking\":{}", gojson::quote(thinking));
        }
        if let Some(call) = call {
            let _ = write!(out, ",\"tool_calls\":[{}]", gojson::escape(&call.to_string()));
        }
        out.push_str(if self.chat { "}," } else { "," });
        out
    }

    /// One object of a stream.
    pub fn piece(&self, said: &Said) -> String {
        let said_text = match said {
            Said::Text(text) => self.said(text, "", None),
            Said::Thinking(text) => self.said("", text, None),
            Said::Call(call) => self.said("", "", Some(call)),
            Said::Held | Said::End(_) => self.said("", "", None),
        };
        format!("{}{said_text}\"done\":false{}}}", self.begin(), self.probabilities(std::slice::from_ref(said)))
    }

    /// The final object of a stream.
    pub fn last(&self, totals: &Totals) -> String {
        format!("{}{}{}}}", self.begin(), self.said("", "", None), self.totals(totals))
    }

    /// The one object of an answer that is not streamed; without totals it claims not to be done.
    pub fn whole(&self, said: &[Said], totals: Option<&Totals>) -> String {
        let (mut content, mut thinking, mut call) = (String::new(), String::new(), None);
        for piece in said {
            match piece {
                Said::Text(text) => content.push_str(text),
                Said::Thinking(text) => thinking.push_str(text),
                Said::Call(value) => call = Some(value),
                Said::Held | Said::End(_) => {}
            }
        }
        let end = totals.map_or_else(|| "\"done\":false".to_owned(), |totals| self.totals(totals));
        format!("{}{}{end}{}}}", self.begin(), self.said(&content, &thinking, call), self.probabilities(said))
    }

    /// Answers to a request without a prompt.
    pub fn nothing(&self, reason: &str) -> String {
        format!("{}{}\"done\":true,\"done_reason\":\"{reason}\"}}", self.begin(), self.said("", "", None))
    }

    /// The rendered prompt instead of an answer.
    pub fn rendered(&self, prompt: &str) -> String {
        let said = if self.chat { "\"message\":{\"role\":\"\",\"content\":\"\"}" } else { "\"response\":\"\"" };
        let prompt = gojson::quote(prompt);
        format!("{}{said},\"done\":false,\"_debug_info\":{{\"rendered_template\":{prompt}}}}}", self.begin())
    }

    fn totals(&self, totals: &Totals) -> String {
        // Zero would be left out.
        let ns = |span: Duration| span.as_nanos().max(1_000);
        let mut out = format!("\"done\":true,\"done_reason\":\"{}\",", totals.reason);
        if let Some(prompt) = &self.context {
            let made = (0..totals.tokens).map(|number| super::generate::token_id(&number.to_string()));
            let ids: Vec<String> = prompt.iter().copied().chain(made).map(|id| id.to_string()).collect();
            let _ = write!(out, "\"context\":[{}],", ids.join(","));
        }
        let _ = write!(
            out,
            "\"total_duration\":{},\"load_duration\":{},\"prompt_eval_count\":{},\"prompt_eval_duration\":{},\"eval_count\":{},\"eval_duration\":{}",
            ns(totals.total),
            ns(totals.load),
            totals.prompt_tokens,
            ns(totals.prompt),
            totals.tokens,
            ns(totals.eval)
        );
        if let Some(cached) = totals.cached {
            let _ = write!(out, ",\"prompt_eval_cached_count\":{cached}");
        }
        out
    }

    fn probabilities(&self, said: &[Said]) -> String {
        let Some(alternatives) = self.logprobs else { return String::new() };
        let one = |text: &str| json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes()});
        let list: Vec<Value> = said
            .iter()
            .filter_map(|piece| match piece {
                Said::Text(text) | Said::Thinking(text) => {
                    let mut entry = one(text);
                    if alternatives > 0 {
                        entry["top_logprobs"] = Value::Array(vec![one(text); alternatives]);
                    }
                    Some(entry)
                }
                _ => None,
            })
            .collect();
        if list.is_empty() { String::new() } else { format!(",\"logprobs\":{}", gojson::escape(&Value::Array(list).to_string())) }
    }
}
