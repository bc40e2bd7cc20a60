//! Going on with an answer that was cut, on another backend that has the very same model.
//!
//! Pure. The model is given the prompt as it was rendered and the text it had written, raw, so that what it writes next follows on the
//! last character that was sent: none is lost, none comes twice. Answers whose state is more than their text are not continued.

use crate::domain::generation::{Ask, Delta, Finish, FinishReason, Prompt};

/// What of an answer has been sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    pub text: String,
    /// Pieces that had text: about as many as tokens.
    pub pieces: u64,
    /// It had something that a continuation could not go on from: thoughts, probabilities, calls of tools.
    pub more_than_text: bool,
}

impl Heard {
    pub fn piece(&mut self, delta: &Delta) {
        self.text.push_str(&delta.text);
        self.pieces += u64::from(!delta.text.is_empty());
        self.more_than_text |= !delta.thinking.is_empty() || delta.extra.keys().any(|name| !ENVELOPE.contains(&name.as_str()));
    }
}

/// Fields of a piece that only say which answer it belongs to.
const ENVELOPE: [&str; 4] = ["model", "created_at", "remote_model", "remote_host"];

/// Why an answer is not continued.
#[must_use]
pub fn obstacle(ask: &Ask, heard: &Heard) -> Option<&'static str> {
    let prompt = &ask.prompt;
    [
        (heard.more_than_text, "it has more than text"),
        (ask.format.is_some(), "its format has to be kept from the start"),
        (!prompt.images.is_empty(), "its prompt has images"),
        (!prompt.context.is_empty(), "its prompt goes on from token ids"),
        (prompt.suffix.is_some(), "it fills a gap"),
        (ask.extra.contains_key("logprobs"), "it has probabilities"),
    ]
    .into_iter()
    .find_map(|(is, why)| is.then_some(why))
}

/// The question that has a backend only render the prompt; `None` when the prompt is raw already.
#[must_use]
pub fn rendering(ask: &Ask) -> Option<Ask> {
    if ask.prompt.raw {
        return None;
    }
    let mut render = ask.clone();
    render.extra.insert("_debug_render_only".to_owned(), true.into());
    Some(render)
}

/// The prompt as the model saw it, out of the answer to [`rendering`].
#[must_use]
pub fn rendered(finish: &Finish) -> Option<&str> {
    finish.extra.get("_debug_info")?.get("rendered_template")?.as_str()
}

/// The question that goes on; `None` when nothing is left to be generated.
#[must_use]
pub fn question(ask: &Ask, rendered: Option<&str>, heard: &Heard) -> Option<Ask> {
    let mut text = rendered.unwrap_or(&ask.prompt.text).to_owned();
    text.push_str(&heard.text);
    let mut question = Ask { prompt: Prompt { text, raw: true, ..Prompt::default() }, think: None, ..ask.clone() };
    if let Some(most) = ask.options.num_predict.filter(|most| *most > 0) {
        let left = most.saturating_sub(i64::try_from(heard.pieces).unwrap_or(i64::MAX));
        question.options.num_predict = Some(left).filter(|left| *left > 0);
        question.options.num_predict?;
    }
    Some(question)
}

/// The end of both parts together.
#[must_use]
pub fn joined(mut finish: Finish, heard_before: &Heard) -> Finish {
    finish.usage.completion_tokens = finish.usage.completion_tokens.map(|tokens| tokens + heard_before.pieces);
    // They are those of a raw prompt, and no longer what the client could go on from.
    finish.context = None;
    finish
}

/// The end of an answer that was cut just where it was to end.
#[must_use]
pub fn full(heard: &Heard) -> Finish {
    use crate::domain::generation::{Remarks, Timing, Usage};
    Finish {
        reason: FinishReason::Length,
        context: None,
        usage: Usage { completion_tokens: Some(heard.pieces), ..Usage::default() },
        timing: Timing::default(),
        remarks: Remarks::default(),
        extra: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::domain::generation::Format;

    fn ask(text: &str, raw: bool) -> Ask {
        Ask { prompt: Prompt { text: text.into(), raw, ..Prompt::default() }, ..Ask::default() }
    }

    fn heard(pieces: &[&str]) -> Heard {
        let mut heard = Heard::default();
        for text in pieces {
            heard.piece(&Delta { text: (*text).into(), ..Delta::default() });
        }
        heard
    }

    #[test]
    fn the_question_goes_on_after_the_last_character() {
        let heard = heard(&["Once", " upon", " a"]);
        let next = question(&ask("Tell:", true), None, &heard).expect("something is left");
        assert_eq!((next.prompt.text.as_str(), next.prompt.raw), ("Tell:Once upon a", true));
        let next = question(&ask("Tell", false), Some("<user>Tell<model>"), &heard).expect("something is left");
        assert_eq!(next.prompt.text, "<user>Tell<model>Once upon a");
        assert!(rendering(&ask("Tell", true)).is_none());
        assert_eq!(rendering(&ask("Tell", false)).expect("asked").extra["_debug_render_only"], true);
    }

    #[test]
    fn only_what_is_left_is_asked_for() {
        let mut bounded = ask("x", true);
        bounded.options.num_predict = Some(5);
        assert_eq!(question(&bounded, None, &heard(&["a", "b"])).expect("left").options.num_predict, Some(3));
        assert_eq!(question(&bounded, None, &heard(&["a"; 5])), None);
        bounded.options.num_predict = Some(-1);
        assert_eq!(question(&bounded, None, &heard(&["a"; 5])).expect("left").options.num_predict, Some(-1));
    }

    #[test]
    fn what_is_more_than_its_text_is_not_continued() {
        assert_eq!(obstacle(&ask("x", true), &heard(&["a"])), None);
        let mut formatted = ask("x", true);
        formatted.format = Some(Format::Json);
        assert!(obstacle(&formatted, &heard(&["a"])).is_some());
        let mut thoughts = Heard::default();
        thoughts.piece(&Delta { thinking: "hm".into(), ..Delta::default() });
        assert!(obstacle(&ask("x", true), &thoughts).is_some());
        let mut probabilities = Heard::default();
        probabilities.piece(&Delta { extra: Map::from_iter([("logprobs".to_owned(), json!([]))]), ..Delta::default() });
        assert!(obstacle(&ask("x", true), &probabilities).is_some());
    }

    #[test]
    fn the_end_counts_both_parts() {
        let mut second = full(&heard(&["c"]));
        second.context = Some(vec![1]);
        let whole = joined(second, &heard(&["a", "b"]));
        assert_eq!((whole.usage.completion_tokens, whole.context), (Some(3), None));
    }
}
