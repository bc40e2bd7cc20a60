//! Exchanges that the gateway collected, as a source: which of them, brought to a file, and what is learnt of each.
//!
//! The file has every exchange that is meant, so that those of which nothing can be learnt are counted with their reason like the rows of any
//! other file. The child process that works on a job touches no database: its worker writes the file, once for all attempts.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::Error;
use super::example::{Body, Role, Turn};
use super::import::{Reason, conversation};
use crate::domain::id::{ModelName, RequestId};
use crate::storage::collection::{CollectionTable, Filter, Order, Owner, Rated, Row};

/// How such a source is called in the place of a path.
pub const COLLECTED: &str = "collected";
/// Exchanges that are read at once, and their bytes.
const ROWS_AT_ONCE: u32 = 500;
const BYTES_AT_ONCE: u64 = 8 << 20;
/// Why an answer ended that said all it had to.
const STOP: &str = "stop";

/// Which exchanges: those for which all holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collected {
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rated>,
    /// Asked at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Asked before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Public id of a key, or `anonymous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether rows are preferences: the correction rather than the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preferences: bool,
}

impl Collected {
    /// How the source is called: the same for the same exchanges.
    #[must_use]
    pub fn name(&self) -> String {
        let all = serde_json::to_string(self).unwrap_or_default();
        if *self == Self::default() { COLLECTED.to_owned() } else { format!("{COLLECTED}:{all}") }
    }

    /// What a command line says: `collected`, or `collected:MODEL`. `None`: it names a file.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word.strip_prefix(COLLECTED)?;
        let model = rest.strip_prefix(':');
        (rest.is_empty() || model.is_some_and(|model| !model.is_empty()))
            .then(|| Self { model: model.map(str::to_owned), ..Self::default() })
    }

    /// # Errors
    /// A model's name that is none.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |error| Error::Options(format!("`collected.model`: {error}"));
        self.model.as_deref().map(ModelName::parse).transpose().map(drop).map_err(wrong)
    }

    fn filter(&self) -> Filter {
        // A name that is none is nobody's.
        let canonical = |name: &String| ModelName::parse(name).map_or_else(|_| name.clone(), |name| name.canonical().to_owned());
        Filter {
            owner: self.key.as_deref().map(Owner::named),
            request_id: None,
            model: self.model.as_ref().map(canonical),
            rated: self.rating,
            since_ms: self.since.map(Timestamp::as_millisecond),
            until_ms: self.until.map(Timestamp::as_millisecond),
        }
    }

    /// Writes the exchanges to a file, which is there whole or not at all.
    ///
    /// # Errors
    /// Those of [`Collected::write`].
    pub async fn export(&self, table: &CollectionTable, path: &Path) -> Result<(), Error> {
        // Of its own: a worker that has lost its lease may still be writing.
        let beside = path.with_extension(format!("{}.part", RequestId::generate()));
        self.write(table, File::create(&beside)?).await?;
        Ok(std::fs::rename(beside, path)?)
    }

    /// Writes the exchanges, one a line, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read, or the file not be written.
    pub async fn write(&self, table: &CollectionTable, file: File) -> Result<(), Error> {
        let filter = self.filter();
        let mut out = BufWriter::with_capacity(1 << 18, file);
        let mut last = 0;
        loop {
            let rows = table.page(&filter, Order::OldestFirst(last), ROWS_AT_ONCE, BYTES_AT_ONCE).await;
            let rows = rows.map_err(|error| Error::Collection(error.to_string()))?;
            let Some(row) = rows.last() else { break };
            last = row.id;
            for row in &rows {
                out.write_all(line(row).as_bytes())?;
                out.write_all(b"\n")?;
            }
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    }

    /// What is learnt of an exchange, as [`Collected::export`] writes it: the conversation with the correction, or else the answer.
    ///
    /// # Errors
    /// An exchange of which nothing can be learnt.
    pub(super) fn body(&self, fields: &Map<String, Value>) -> Result<Body, Reason> {
        let text = |name: &'static str| fields.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let prompt = conversation(fields, "messages")?;
        let (answer, correction) = (text("answer").ok_or(Reason::Empty("answer"))?, text("correction"));
        if self.preferences {
            let (chosen, rejected) = (correction.ok_or(Reason::Uncorrected)?, answer);
            if chosen == rejected {
                return Err(Reason::Same);
            }
            let side = |text: &str| vec![Turn::new(Role::Assistant, text)];
            return Ok(Body::Preference { prompt, chosen: side(chosen), rejected: side(rejected) });
        }
        let learnt = match (correction, text("rating"), text("finish_reason")) {
            (Some(correction), ..) => correction,
            (None, Some("bad"), _) => return Err(Reason::Bad),
            // It would teach to stop in the middle.
            (None, _, reason) if reason != Some(STOP) => return Err(Reason::Bounded),
            (None, ..) => answer,
        };
        Ok(Body::Chat(prompt.into_iter().chain([Turn::new(Role::Assistant, learnt)]).collect()))
    }
}

fn line(row: &Row) -> String {
    let exchange = &row.exchange;
    // Written by this program as JSON.
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut fields = json!({
        "messages": parsed(&exchange.messages), "answer": exchange.answer, "finish_reason": exchange.finish_reason,
    });
    if let Some(tools) = &exchange.tools {
        fields["tools"] = parsed(tools);
    }
    if let Some(said) = &row.feedback {
        fields["rating"] = said.rating.as_str().into();
        if let Some(correction) = &said.correction {
            fields["correction"] = correction.as_str().into();
        }
    }
    fields.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(collected: &Collected, fields: &Value) -> Result<Body, Reason> {
        collected.body(fields.as_object().expect("an object"))
    }

    fn asked() -> Value {
        json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}], "answer": "a", "finish_reason": "stop"})
    }

    fn with(change: &Value) -> Value {
        let mut fields = asked();
        change.as_object().expect("an object").iter().for_each(|(name, value)| fields[name] = value.clone());
        fields
    }

    #[test]
    fn a_correction_stands_for_the_answer_and_what_teaches_nothing_good_is_left_out() {
        let all = Collected::default();
        let learnt = |change| body(&all, &with(&change)).map(|body| body.answers().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(learnt(json!({})), Ok(vec!["a".to_owned()]));
        assert_eq!(learnt(json!({"rating": "good"})), Ok(vec!["a".to_owned()]));
        assert_eq!(learnt(json!({"rating": "bad", "correction": "b"})), Ok(vec!["b".to_owned()]));
        assert_eq!(learnt(json!({"rating": "bad"})), Err(Reason::Bad));
        assert_eq!(learnt(json!({"finish_reason": "length"})), Err(Reason::Bounded));
        assert_eq!(learnt(json!({"finish_reason": "length", "rating": "bad", "correction": "b"})), Ok(vec!["b".to_owned()]));
        let Ok(Body::Chat(turns)) = body(&all, &asked()) else { panic!("a conversation") };
        assert_eq!(turns.iter().map(|turn| turn.role.name()).collect::<Vec<_>>(), ["system", "user", "assistant"]);
    }

    #[test]
    fn preferences_are_corrections_rather_than_answers() {
        let pairs = Collected { preferences: true, ..Collected::default() };
        let Ok(Body::Preference { prompt, chosen, rejected }) = body(&pairs, &with(&json!({"correction": "b"}))) else { panic!("a pair") };
        assert_eq!((prompt.len(), chosen[0].content.as_str(), rejected[0].content.as_str()), (2, "b", "a"));
        assert_eq!(body(&pairs, &asked()), Err(Reason::Uncorrected));
        assert_eq!(body(&pairs, &with(&json!({"correction": "a"}))), Err(Reason::Same));
    }

    #[test]
    fn a_word_names_what_was_collected_or_a_file() {
        assert_eq!(Collected::parse("collected"), Some(Collected::default()));
        assert_eq!(Collected::parse("collected:gemma3:270m").and_then(|c| c.model).as_deref(), Some("gemma3:270m"));
        for file in ["collected.jsonl", "./collected", "collected:", "rows.jsonl", "Collected"] {
            assert_eq!(Collected::parse(file), None, "{file}");
        }
        let since = "2030-01-31T00:00:00Z".parse().expect("a time");
        let some = Collected { since: Some(since), rating: Some(Rated::Good), ..Collected::default() };
        assert_eq!(some.name(), r#"collected:{"rating":"good","since":"2030-01-31T00:00:00Z"}"#);
        assert_eq!((Collected::default().name().as_str(), some.filter().since_ms), (COLLECTED, Some(since.as_millisecond())));
        assert!(Collected { model: Some("a b".into()), ..Collected::default() }.validate().is_err());
    }
}
