//! From the tree to types: a serde deserializer that knows where in the tree it is and keeps what went wrong as data.
//!
//! Text from variables and flags is read as the type that asks for it: `8000` is a number where a number is wanted and text
//! where text is. Values from a file keep the type they were written with.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::file;
use super::tree::{Node, Path, Step, Value};

/// Why a tree is not the type that was asked for, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Steps from the innermost outwards.
    trail: Vec<Step>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A key nobody asked for; these were asked for.
    Unknown(&'static [&'static str]),
    Missing(&'static str),
    /// The value is of the wrong type or out of range: what it is, and what is taken, in serde's words.
    Wrong {
        got: String,
        takes: String,
    },
    /// The type's own words.
    Refused(String),
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Self { trail: Vec::new(), kind }
    }

    fn inside(mut self, step: Step) -> Self {
        self.trail.push(step);
        self
    }

    #[must_use]
    pub fn path(&self) -> Path {
        Path(self.trail.iter().rev().cloned().collect())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path(), self.kind)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Refused(message.to_string()))
    }

    fn invalid_type(got: Unexpected<'_>, takes: &dyn de::Expected) -> Self {
        Self::new(Kind::Wrong { got: in_words(got), takes: takes.to_string() })
    }

    fn invalid_value(got: Unexpected<'_>, takes: &dyn de::Expected) -> Self {
        Self::invalid_type(got, takes)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let takes = expected.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        Self::new(Kind::Wrong { got: format!("\"{variant}\""), takes: format!("one of {takes}") })
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::Unknown(expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field))
    }
}

fn in_words(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(value) => format!("\"{value}\""),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// # Errors
/// The first fault; see [`super::load`] for how the others are found.
pub fn decode<C: DeserializeOwned>(tree: Node) -> Result<C, Fault> {
    C::deserialize(Reader(tree))
}

struct Reader(Node);

impl Reader {
    /// Text of a variable that stands for a list or a table, as TOML: `["a", "b"]`, `{ x = 1 }`.
    fn inline(&self, opening: char) -> Result<Option<Self>, Fault> {
        let Value::Raw(text) = &self.0.value else { return Ok(None) };
        if !text.trim_start().starts_with(opening) {
            return Ok(None);
        }
        let node = file::value(text, &self.0.origin).map_err(|message| Fault::new(Kind::Refused(message)))?;
        Ok(Some(Self(node)))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Raw(text) => match text.trim().replace('_', "").parse::<i128>() {
                Ok(number) => integer(number, visitor),
                Err(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Raw(text) => match text.trim().parse::<f64>() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }
}

/// Hands a whole number over in the narrowest of serde's two widths.
fn integer<'de, V: Visitor<'de>>(number: i128, visitor: V) -> Result<V::Value, Fault> {
    if let Ok(number) = u64::try_from(number) {
        visitor.visit_u64(number)
    } else if let Ok(number) = i64::try_from(number) {
        visitor.visit_i64(number)
    } else {
        Err(de::Error::invalid_value(Unexpected::Other(&number.to_string()), &visitor))
    }
}

/// What text means where any type would do.
fn guess<'de, V: Visitor<'de>>(text: String, visitor: V) -> Result<V::Value, Fault> {
    match text.as_str() {
        "true" => visitor.visit_bool(true),
        "false" => visitor.visit_bool(false),
        other => match (other.parse::<i128>(), other.parse::<f64>()) {
            (Ok(number), _) => integer(number, visitor),
            (_, Ok(number)) => visitor.visit_f64(number),
            _ => visitor.visit_string(text),
        },
    }
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.into_iter(), value: None }),
            Value::List(items) => visitor.visit_seq(Items { rest: items.into_iter().enumerate() }),
            Value::Text(text) => visitor.visit_string(text),
            Value::Integer(number) => integer(number, visitor),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Raw(text) => guess(text, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Raw(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => visitor.visit_bool(true),
                "false" | "0" | "no" | "off" => visitor.visit_bool(false),
                _ => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.float(visitor)
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.float(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Raw(text) => visitor.visit_string(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(list) = self.inline('[')? {
            return list.deserialize_any(visitor);
        }
        match self.0.value {
            Value::Raw(text) => {
                let origin = self.0.origin;
                let items: Vec<Node> =
                    pieces(&text).map(|piece| Node { origin: origin.clone(), value: Value::Raw(piece.to_owned()) }).collect();
                visitor.visit_seq(Items { rest: items.into_iter().enumerate() })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.inline('{')? {
            Some(table) => table.deserialize_any(visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_enum(text.into_deserializer()),
            Value::Table(entries) => visitor.visit_enum(MapAccessDeserializer::new(Entries { rest: entries.into_iter(), value: None })),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit_struct tuple tuple_struct identifier ignored_any }
}

/// The items of a list written with commas.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|piece| !piece.is_empty())
}

struct Entries {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<(String, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let step = Step::Key(key.clone());
        let read = seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(key.as_str())).map_err(|fault| fault.inside(step))?;
        self.value = Some((key, node));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, node) = self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Reader(node)).map_err(|fault| fault.inside(Step::Key(key)))
    }
}

struct Items {
    rest: std::iter::Enumerate<std::vec::IntoIter<Node>>,
}

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(Reader(node)).map(Some).map_err(|fault| fault.inside(Step::Index(index)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::config::tree::Origin;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    fn raw(text: &str) -> Node {
        Node { origin: Origin::Variable("X".into()), value: Value::Raw(text.into()) }
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
        decode(raw(text))
    }

    #[test]
    fn text_is_read_as_the_type_that_asks() {
        assert_eq!(read::<String>("8000"), Ok("8000".to_owned()));
        assert_eq!(read::<u16>(" 8000 "), Ok(8000));
        assert_eq!(read::<Option<i64>>("-1"), Ok(Some(-1)));
        assert_eq!(read::<f64>("3"), Ok(3.0));
        assert_eq!(read::<bool>("On"), Ok(true));
        assert_eq!(read::<Colour>("green"), Ok(Colour::Green));
        assert_eq!(read::<Vec<String>>("a, b,"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read::<Vec<u8>>("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read::<BTreeMap<String, u8>>("{ x = 1 }"), Ok(BTreeMap::from([("x".to_owned(), 1)])));
        assert_eq!(read::<serde_json::Value>("1.5"), Ok(serde_json::json!(1.5)));
    }

    #[test]
    fn what_does_not_fit_says_what_it_takes() {
        let wrong = |kind: Kind| match kind {
            Kind::Wrong { got, takes } => (got, takes),
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong(read::<u16>("70000").expect_err("too large").kind), ("70000".into(), "u16".into()));
        assert_eq!(wrong(read::<u16>("many").expect_err("no number").kind), ("\"many\"".into(), "u16".into()));
        assert_eq!(wrong(read::<Colour>("blue").expect_err("no variant").kind), ("\"blue\"".into(), "one of \"red\", \"green\"".into()));
        assert_eq!(read::<Vec<u8>>("1,x").expect_err("second").path().to_string(), "[1]");
    }

    proptest! {
        #[test]
        fn any_text_a_variable_can_hold_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            prop_assert_eq!(read::<String>(&text), Ok(text.clone()));
            let _ = read::<u64>(&text);
            let _ = read::<bool>(&text);
            let _ = read::<Vec<String>>(&text);
            let _ = read::<BTreeMap<String, i64>>(&text);
            let _ = read::<serde_json::Value>(&text);
        }

        #[test]
        fn numbers_survive_the_way_through_text(number in any::<i64>(), float in -1e12..1e12_f64) {
            prop_assert_eq!(read::<i64>(&number.to_string()), Ok(number));
            prop_assert_eq!(read::<f64>(&float.to_string()), Ok(float));
        }
    }
}
