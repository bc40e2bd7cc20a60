//! One row, as tokens with their weights.

use std::borrow::Cow;
use std::ops::Range;

use super::spans::{self, Answers, Marks};
use super::{Control, Long, Mask, Options};
use crate::gguf::Header;
use crate::jobs::dataset::error::Error;
use crate::jobs::dataset::example::{Body, Example, Role, Turn};
use crate::jobs::finetune::batch::Row;
use crate::lm::template::{Message, Names, Template};
use crate::lm::tokenizer::{Encode, Tokenizer};

/// Why a row is not trained on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    #[error("the template refuses it: {0}")]
    Template(String),
    #[error("where the template writes the answers cannot be told")]
    Answers,
    #[error("it holds the name of a control token")]
    Control,
    #[error("it holds characters that no text has")]
    Characters,
    #[error("it is too long")]
    TooLong,
    #[error("nothing to learn is left of it within the length of a row")]
    NoLabel,
}

impl Dropped {
    /// What statistics count it as.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Template(_) => "refused by the template",
            Self::Answers => "answers not found",
            Self::Control => "control tokens",
            Self::Characters => "noncharacters",
            Self::TooLong => "too long",
            Self::NoLabel => "nothing to learn",
        }
    }
}

/// What became of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// One; of a preference two, the preferred one first; of a long text several.
    pub rows: Vec<Row>,
    /// Whether any of it did not fit.
    pub cut: bool,
    /// Whether names of control tokens were read as text.
    pub defused: bool,
    /// Whether an answer ends without a token that ends it: the model then does not learn to stop.
    pub unended: bool,
}

/// Makes tokens of rows.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    template: Template,
    names: Names,
    options: Options,
    /// What the template writes for the model to go on from, behind all else.
    lead: String,
}

/// A text that a template wrote.
struct Written {
    /// With marks where names of control tokens are taken apart.
    text: String,
    /// The turns that were rendered: not those of the row where the template does not take them.
    messages: Vec<Message>,
    marks: Marks,
    defused: bool,
}

impl Encoder {
    /// # Errors
    /// When no row could have a label.
    pub fn new(tokenizer: Tokenizer, template: Template, options: Options) -> Result<Self, Error> {
        if options.sequence_tokens < 2 {
            return Err(Error::Options("rows have two tokens at least (`sequence_tokens`)".to_owned()));
        }
        let name = |id: Option<u32>| id.map(|id| tokenizer.token_name(id)).unwrap_or_default();
        let names = Names { bos: name(tokenizer.bos()), eos: name(tokenizer.eos()) };
        let lead = spans::lead(&template, &names);
        Ok(Self { tokenizer, template, names, options, lead })
    }

    /// With what a model file brings.
    ///
    /// # Errors
    /// When its vocabulary or its template cannot be used.
    pub fn from_header(header: &Header, options: Options) -> Result<Self, Error> {
        let wrong = |what: &str, why: String| Error::Options(format!("the model's {what} cannot be used: {why}"));
        let tokenizer = Tokenizer::from_header(header).map_err(|error| wrong("vocabulary", error.to_string()))?;
        let template = Template::from_header(header).map_err(|error| wrong("chat template", error.to_string()))?;
        Self::new(tokenizer, template, options)
    }

    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// # Errors
    /// Why the row cannot be trained on.
    pub fn encode(&self, example: &Example) -> Result<Encoded, Dropped> {
        match &example.body {
            Body::Text(text) => self.text(text),
            Body::Chat(turns) => {
                let mut encoded = Encoded::default();
                let row = self.conversation(turns, 0, &mut encoded)?;
                encoded.rows.push(row);
                Ok(encoded)
            }
            Body::Preference { prompt, chosen, rejected } => {
                let mut encoded = Encoded::default();
                for side in [chosen, rejected] {
                    let row = self.conversation(&[prompt.as_slice(), side].concat(), prompt.len(), &mut encoded)?;
                    encoded.rows.push(row);
                }
                Ok(encoded)
            }
        }
    }

    /// The tokens of a prompt, up to where the model is to answer: for samples while training.
    ///
    /// # Errors
    /// When the template refuses it.
    pub fn prompt(&self, turns: &[Turn]) -> Result<Vec<u32>, Dropped> {
        let (written, _) = self.write(turns, true)?;
        Ok(self.tokenizer.encode_parts(written.text.split(written.marks.apart), self.templated()))
    }

    /// A chat template writes the token that begins a text itself, if it wants one. A transcript of a model without a template is a text like any
    /// other: where it is served, that token comes before it.
    fn templated(&self) -> Encode {
        Encode { add_bos: self.template.is_plain() && self.tokenizer.adds_bos(), parse_special: true }
    }

    /// Plain text, with the tokens that begin and end a text; all of it is learnt.
    fn text(&self, text: &str) -> Result<Encoded, Dropped> {
        let special = self.options.control == Control::Special;
        let how = Encode { add_bos: self.tokenizer.adds_bos(), parse_special: special };
        let defused = !special && self.tokenizer.defuse(text, '\0').len() != text.len();
        if defused && self.options.control == Control::Drop {
            return Err(Dropped::Control);
        }
        let mut tokens = self.tokenizer.encode(text, how);
        tokens.extend(self.tokenizer.eos());
        let most = self.options.sequence_tokens;
        let cut = tokens.len() > most;
        if cut && self.options.long == Long::Drop {
            return Err(Dropped::TooLong);
        }
        let rows: Vec<Row> = tokens
            .chunks(most)
            .filter(|piece| piece.len() > 1)
            .map(|piece| Row { tokens: piece.to_vec(), weights: vec![1.0; piece.len()] })
            .collect();
        if rows.is_empty() { Err(Dropped::NoLabel) } else { Ok(Encoded { rows, cut, defused, unended: self.tokenizer.eos().is_none() }) }
    }

    /// A conversation, of which the turns from `first` on may be learnt.
    fn conversation(&self, turns: &[Turn], first: usize, encoded: &mut Encoded) -> Result<Row, Dropped> {
        let (written, first) = self.write_from(turns, first)?;
        let answers = Answers { template: &self.template, names: &self.names, lead: &self.lead };
        let spans = answers.find(&written.text, &written.messages, written.marks, first).ok_or(Dropped::Answers)?;
        let (tokens, ends) = self.tokenizer.encode_with_ends(written.text.split(written.marks.apart), self.templated());
        let (text, spans) = without(&written.text, written.marks.apart, spans);
        let places = Places { text: &text, tokens: &tokens, ends: &ends, tokenizer: &self.tokenizer };
        let (mut weights, unended) = places.weights(&spans, self.options.mask);
        let end = places.end_of_transcript(&spans).filter(|_| self.template.is_plain()).zip(self.tokenizer.eos());
        encoded.defused |= written.defused;
        encoded.unended |= unended && end.is_none();
        let mut tokens = tokens;
        // A transcript has no token that ends a turn. Without one that ends the text, the model would never learn to stop.
        if let Some((behind, eos)) = end {
            weights[behind..].fill(1.0);
            tokens.push(eos);
            weights.push(1.0);
        }
        if tokens.len() > self.options.sequence_tokens {
            if self.options.long == Long::Drop {
                return Err(Dropped::TooLong);
            }
            encoded.cut = true;
            tokens.truncate(self.options.sequence_tokens);
            weights.truncate(self.options.sequence_tokens);
        }
        // Nothing comes before the first token.
        if weights.iter().skip(1).all(|weight| *weight == 0.0) {
            return Err(Dropped::NoLabel);
        }
        Ok(Row { tokens, weights })
    }

    /// The turns as the template writes them, and which of those that were written is the turn `first`.
    fn write_from(&self, turns: &[Turn], first: usize) -> Result<(Written, usize), Dropped> {
        let (written, merged) = self.write(turns, false)?;
        let first = if merged { simple(&turns[..first]).len() } else { first };
        Ok((written, first))
    }

    /// Whether turns had to be merged.
    fn write(&self, turns: &[Turn], asks: bool) -> Result<(Written, bool), Dropped> {
        let marks = Marks::free(&turns.iter().map(|turn| turn.content.as_str())).ok_or(Dropped::Characters)?;
        let mut defused = false;
        let mut messages: Vec<Message> = Vec::with_capacity(turns.len());
        for turn in turns {
            let content = self.content(&turn.content, marks.apart)?;
            defused |= matches!(content, Cow::Owned(_));
            messages.push(Message::new(turn.role.name(), content));
        }
        let refused = match self.template.render_with(&messages, &self.names, asks) {
            Ok(text) => return Ok((Written { text, messages, marks, defused }, false)),
            Err(error) => Dropped::Template(error.to_string()),
        };
        // Templates that know no tools, or want turns to take turns, may take them when they are told in other words.
        let simple = simple_messages(turns, &messages);
        if simple.len() == messages.len() && simple.iter().zip(&messages).all(|(one, other)| one.role == other.role) {
            return Err(refused);
        }
        match self.template.render_with(&simple, &self.names, asks) {
            Ok(text) => Ok((Written { text, messages: simple, marks, defused }, true)),
            Err(_) => Err(refused),
        }
    }

    /// What a turn says, with marks in the names of control tokens where those are to be text.
    fn content<'a>(&self, text: &'a str, mark: char) -> Result<Cow<'a, str>, Dropped> {
        if self.options.control == Control::Special {
            return Ok(Cow::Borrowed(text));
        }
        let apart = self.tokenizer.defuse(text, mark);
        match apart.len() == text.len() {
            true => Ok(Cow::Borrowed(text)),
            false if self.options.control == Control::Drop => Err(Dropped::Control),
            false => Ok(Cow::Owned(apart)),
        }
    }
}

/// Who speaks in a conversation of users and assistants alone that take turns.
fn simple(turns: &[Turn]) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    for turn in turns {
        let role = if turn.role == Role::Tool { Role::User } else { turn.role };
        if roles.last() != Some(&role) {
            roles.push(role);
        }
    }
    roles
}

/// The turns so: what a tool answers is a user's, and turns of one side are one.
fn simple_messages(turns: &[Turn], messages: &[Message]) -> Vec<Message> {
    let mut simple: Vec<Message> = Vec::new();
    for (turn, message) in turns.iter().zip(messages) {
        let (role, content) = match turn.role {
            Role::Tool => ("user", format!("<tool_response>\n{}\n</tool_response>", message.content)),
            _ => (turn.role.name(), message.content.clone()),
        };
        match simple.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content = [&last.content, "\n\n", &content].concat(),
            None => simple.push(Message::new(role, content)),
        }
    }
    simple
}

/// A text without a mark, and where spans of it are then.
fn without(text: &str, mark: char, spans: Vec<Range<usize>>) -> (String, Vec<Range<usize>>) {
    if !text.contains(mark) {
        return (text.to_owned(), spans);
    }
    let before = |at: usize| at - text[..at].matches(mark).count() * mark.len_utf8();
    let spans = spans.iter().map(|span| before(span.start)..before(span.end)).collect();
    (text.replace(mark, ""), spans)
}

/// Tokens and where they are in the text.
struct Places<'a> {
    text: &'a str,
    tokens: &'a [u32],
    ends: &'a [usize],
    tokenizer: &'a Tokenizer,
}

impl Places<'_> {
    /// A weight for each token, and whether an answer has no token that ends it.
    fn weights(&self, spans: &[Range<usize>], mask: Mask) -> (Vec<f32>, bool) {
        let mut weights = vec![0.0; self.tokens.len()];
        let mut unended = false;
        let learnt = match mask {
            Mask::All => {
                weights.fill(1.0);
                spans
            }
            Mask::Completion => {
                if let Some(first) = spans.first() {
                    weights[self.first_in(first.start)..].fill(1.0);
                }
                spans
            }
            Mask::Last => &spans[spans.len().saturating_sub(1)..],
            Mask::Assistant => spans,
        };
        for span in learnt {
            let behind = self.behind(span);
            let end = self.end_of_turn(behind);
            unended |= end.is_none();
            let first = self.first_in(span.start);
            weights[first.min(behind)..end.map_or(behind, |end| end + 1)].fill(1.0);
        }
        (weights, unended)
    }

    /// The first token behind the last answer, if nothing is said behind it.
    fn end_of_transcript(&self, spans: &[Range<usize>]) -> Option<usize> {
        let last = spans.last().filter(|last| self.text[last.end..].trim().is_empty())?;
        Some(self.behind(last))
    }

    fn behind(&self, span: &Range<usize>) -> usize {
        (self.ends.partition_point(|end| *end < span.end) + 1).min(self.tokens.len())
    }

    /// The first token that reaches beyond a place, or stands there for a space that only the vocabulary wants.
    fn first_in(&self, place: usize) -> usize {
        let mut first = self.ends.partition_point(|end| *end <= place);
        while first > 0 && self.ends[first - 1] == place && self.start(first - 1) == place {
            first -= 1;
        }
        first
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The token that ends the turn, where only white space comes before it.
    fn end_of_turn(&self, behind: usize) -> Option<usize> {
        for (index, id) in self.tokens.iter().enumerate().skip(behind.saturating_sub(1)) {
            if self.tokenizer.is_end_of_generation(*id) {
                return Some(index);
            }
            if index >= behind && !self.text.get(self.start(index)..self.ends[index]).is_some_and(|text| text.trim().is_empty()) {
                return None;
            }
        }
        None
    }
}
