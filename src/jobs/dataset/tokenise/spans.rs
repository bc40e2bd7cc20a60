//! Where a template writes what the assistant says.
//!
//! Templates do not tell. So the conversation is rendered once more, with a mark at both ends of each answer; without the marks that must be
//! the very text that is trained on. Templates that look into answers (and take thoughts out of them, say) are asked turn by turn. An answer
//! begins behind what the template writes for the model to go on from, so that what is learnt is what will be asked for.

use std::ops::Range;

use crate::lm::template::{Message, Names, Template};

const ASSISTANT: &str = "assistant";

/// Characters that no text of a row has. Unicode keeps them for such uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Within names of control tokens.
    pub apart: char,
    open: char,
    close: char,
}

impl Marks {
    /// Three that none of the texts has.
    pub fn free<'a>(texts: &(impl Iterator<Item = &'a str> + Clone)) -> Option<Self> {
        // Their bytes in UTF-8 begin so, and hardly any text has them.
        let any = texts.clone().any(|text| memchr::memmem::find(text.as_bytes(), b"\xef\xb7").is_some());
        let used = |c: &char| any && texts.clone().any(|text| text.contains(*c));
        let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|c| !used(c));
        Some(Self { apart: free.next()?, open: free.next()?, close: free.next()? })
    }
}

/// What a template writes for the model to go on from: what it adds to a question when it asks.
pub(super) fn lead(template: &Template, names: &Names) -> String {
    let question = [Message::new("user", "x")];
    let render = |asks| template.render_with(&question, names, asks).unwrap_or_default();
    let (asking, bare) = (render(true), render(false));
    let same = asking.char_indices().zip(bare.chars()).take_while(|((_, one), other)| one == other);
    let shared = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    asking[shared..].to_owned()
}

/// Looks for answers.
pub(super) struct Answers<'a> {
    pub template: &'a Template,
    pub names: &'a Names,
    pub lead: &'a str,
}

impl Answers<'_> {
    /// The bytes of each answer in the text that the template made of the messages, from the message `first` on; `None` where they cannot be
    /// told.
    pub fn find(&self, text: &str, messages: &[Message], marks: Marks, first: usize) -> Option<Vec<Range<usize>>> {
        let wanted: Vec<usize> = (first..messages.len()).filter(|index| messages[*index].role == ASSISTANT).collect();
        let inner = match self.marked(text, messages, marks, &wanted) {
            Some(spans) => spans,
            None => wanted.iter().map(|index| self.one(text, messages, marks, *index)).collect::<Option<Vec<_>>>()?,
        };
        let mut before = 0;
        let mut spans = Vec::with_capacity(inner.len());
        for span in inner {
            let start = self.behind_lead(text, before, &span)?;
            before = span.end;
            spans.push(start..span.end);
        }
        Some(spans)
    }

    /// The spans between marks around the answers that are wanted: around the white space at their ends or, where the template takes that away,
    /// within it.
    fn marked(&self, text: &str, messages: &[Message], marks: Marks, wanted: &[usize]) -> Option<Vec<Range<usize>>> {
        let found = |within| self.marked_so(text, messages, marks, wanted, within);
        let blank = wanted.iter().any(|index| messages[*index].content.trim() != messages[*index].content);
        found(false).or_else(|| if blank { found(true) } else { None })
    }

    fn marked_so(&self, text: &str, messages: &[Message], marks: Marks, wanted: &[usize], within: bool) -> Option<Vec<Range<usize>>> {
        let mut changed = messages.to_vec();
        for index in wanted {
            changed[*index].content = around(&messages[*index].content, marks, within);
        }
        let rendered = self.template.render_with(&changed, self.names, false).ok()?;
        let (mut plain, mut spans, mut open) = (String::with_capacity(text.len()), Vec::new(), None);
        for c in rendered.chars() {
            if c == marks.open {
                open = Some(plain.len());
            } else if c == marks.close {
                spans.push(open.take()?..plain.len());
            } else {
                plain.push(c);
            }
        }
        (plain == text && spans.len() == wanted.len()).then_some(spans)
    }

    /// The span of one answer, by itself; where the template takes its beginning away, from where the model goes on.
    fn one(&self, text: &str, messages: &[Message], marks: Marks, index: usize) -> Option<Range<usize>> {
        if let Some(spans) = self.marked(text, messages, marks, &[index]) {
            return spans.first().cloned();
        }
        let mut changed = messages.to_vec();
        let content = messages[index].content.trim_end();
        changed[index].content = format!("{content}{}{}", marks.close, &messages[index].content[content.len()..]);
        let rendered = self.template.render_with(&changed, self.names, false).ok()?;
        let (before, after) = rendered.split_once(marks.close)?;
        let start = self.template.render_with(&messages[..index], self.names, true).ok()?.len();
        let whole = text.len() == before.len() + after.len() && text.starts_with(before) && text.ends_with(after);
        (whole && start <= before.len() && text.is_char_boundary(start)).then_some(start..before.len())
    }

    /// Where an answer begins: behind the lead, where there is one before it.
    fn behind_lead(&self, text: &str, before: usize, span: &Range<usize>) -> Option<usize> {
        let before = before.min(span.start);
        let head = text.get(before..span.start)?;
        let led = if self.lead.is_empty() { None } else { head.rfind(self.lead).map(|at| before + at + self.lead.len()) };
        Some(led.unwrap_or(span.start))
    }
}

/// A content with marks at its ends, or within the white space there.
fn around(content: &str, marks: Marks, within: bool) -> String {
    let start = if within { content.len() - content.trim_start().len() } else { 0 };
    let end = if within { content.trim_end().len().max(start) } else { content.len() };
    let mut out = String::with_capacity(content.len() + 6);
    out.push_str(&content[..start]);
    out.push(marks.open);
    out.push_str(&content[start..end]);
    out.push(marks.close);
    out.push_str(&content[end..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    /// Takes thoughts out of all answers but the last, and puts empty ones into that, as Qwen 3 does.
    const THINKING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and '</think>' in m.content and not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% elif m.role == 'assistant' and loop.last and '</think>' not in m.content %}<think>\n\n</think>\n\n{{ m.content }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    const TRIMMING: &str = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %} {{ m.content | trim }}</s>{% endif %}{% endfor %}";
    /// Ends what is learnt from in another way than it asks, as Phi-3 does.
    const ENDING: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}";

    fn answers(source: &str, turns: &[&str], first: usize) -> Option<Vec<String>> {
        let template = Template::jinja(source).expect("a template");
        let names = Names::default();
        let messages: Vec<Message> =
            turns.iter().enumerate().map(|(index, text)| Message::new(if index % 2 == 0 { "user" } else { ASSISTANT }, *text)).collect();
        let text = template.render_with(&messages, &names, false).expect("rendered");
        let marks = Marks::free(&turns.iter().copied()).expect("free");
        let found = Answers { template: &template, names: &names, lead: &lead(&template, &names) }.find(&text, &messages, marks, first)?;
        Some(found.into_iter().map(|span| text[span].to_owned()).collect())
    }

    #[test]
    fn answers_are_found_in_what_a_template_wrote() {
        let turns = ["q", "one", "assistant", " two \n"];
        assert_eq!(answers(CHATML, &turns, 0).expect("found"), ["one", " two \n"]);
        assert_eq!(answers(CHATML, &turns, 2).expect("found"), [" two \n"]);
        assert_eq!(answers(TRIMMING, &turns, 0).expect("found"), ["one", "two"]);
        assert_eq!(answers(ENDING, &turns, 0).expect("found"), ["one", " two \n"]);
        assert_eq!(answers(CHATML, &["q", "<|im_start|>assistant\nx"], 0).expect("found"), ["<|im_start|>assistant\nx"]);
    }

    #[test]
    fn templates_that_look_into_answers_are_asked_turn_by_turn() {
        let thought = |answer: &str| format!("<think>\nhm\n</think>\n\n{answer}");
        let (one, two) = (thought("one"), thought("two"));
        assert_eq!(answers(THINKING, &["q", &one, "r", &two], 0).expect("found"), ["one", two.as_str()]);
        assert_eq!(answers(THINKING, &["q", "one", "r", "two"], 0).expect("found"), ["one", "<think>\n\n</think>\n\ntwo"]);
    }

    #[test]
    fn a_template_that_hides_answers_is_told() {
        assert_eq!(answers("{% for m in messages %}{{ m.content | upper | length }}{% endfor %}", &["q", "one"], 0), None);
    }

    #[test]
    fn the_lead_is_what_is_added_for_an_answer() {
        let of = |source: &str| lead(&Template::jinja(source).expect("a template"), &Names::default());
        assert_eq!(of(CHATML), "<|im_start|>assistant\n");
        assert_eq!(of(TRIMMING), "");
        assert!("<|assistant|>\n".ends_with(&of(ENDING)) && of(ENDING).len() > 5);
    }
}
