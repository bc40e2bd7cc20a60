//! Which tokens begin and end a text, which are added on their own, and the chat template.
//!
//! The sources are read in the order of gguf-py's `SpecialVocab`, and the first that names a token wins: `tokenizer.json` with
//! `tokenizer_config.json`, then `config.json`. Its quirks are kept, because they are in every file that llama.cpp's converter wrote.

use serde_json::{Map, Value};

use super::super::error::Result;
use super::super::folder::Folder;
use super::super::metadata::Pairs;
use super::json::{Added, TokenizerJson};
use super::template;

/// The roles in the order in which they are looked for.
const ROLES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

#[derive(Debug, Default)]
pub(super) struct Special {
    roles: Vec<&'static str>,
    /// No id from here on is taken.
    limit: Option<u32>,
    ids: Vec<(&'static str, u32)>,
    adds: Vec<(&'static str, bool)>,
    template: Option<Value>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
}

/// The files of a tokenizer.
pub(super) struct Sources<'a> {
    pub(super) folder: &'a Folder,
    pub(super) json: Option<&'a TokenizerJson>,
    /// `tokenizer_config.json`
    pub(super) config: Option<&'a Value>,
    /// `config.json`
    pub(super) model: &'a Value,
}

impl Special {
    pub(super) fn read(sources: &Sources, limit: Option<u32>) -> Result<Self> {
        let mut special = Self { roles: ROLES.to_vec(), limit, ..Self::default() };
        let mut config = sources.config.and_then(Value::as_object).filter(|config| !config.is_empty()).cloned();
        if let Some(json) = sources.json {
            special.normalizer(json.normalizer.as_ref());
            special.processors(json.post_processor.as_ref(), config.as_mut());
        }
        if let Some(config) = &config {
            special.template = template::read(sources.folder, config)?;
            special.roles_of(config, sources.json.map_or(&[], |json| json.added_tokens.as_slice()));
        }
        for role in special.roles.clone() {
            let key = format!("{role}_token_id");
            let at_root = sources.model.get(&key).filter(|id| !id.is_null());
            let id = at_root.or_else(|| sources.model.get("text_config")?.get(&key));
            special.offer(role, id.and_then(Value::as_u64));
        }
        Ok(special)
    }

    /// Names a token's id, unless it has one.
    pub(super) fn offer(&mut self, role: &'static str, id: Option<u64>) {
        let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| self.limit.is_none_or(|limit| *id < limit));
        if let (Some(id), None) = (id, self.id(role)) {
            self.ids.push((role, id));
        }
    }

    fn id(&self, role: &str) -> Option<u32> {
        self.ids.iter().find(|(known, _)| *known == role).map(|(_, id)| *id)
    }

    fn added(&self, role: &str) -> Option<bool> {
        self.adds.iter().find(|(known, _)| *known == role).map(|(_, add)| *add)
    }

    fn set_added(&mut self, role: &'static str, add: bool) {
        match self.adds.iter_mut().find(|(known, _)| *known == role) {
            Some((_, old)) => *old = add,
            None => self.adds.push((role, add)),
        }
    }

    fn normalizer(&mut self, normalizer: Option<&Value>) {
        let Some(normalizer) = normalizer else { return };
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                self.lowercase = normalizer.get("lowercase").and_then(Value::as_bool).or(self.lowercase);
                self.strip_accents = normalizer.get("strip_accents").and_then(Value::as_bool).or(self.strip_accents);
            }
            Some("Sequence") => {
                for part in normalizer.get("normalizers").and_then(Value::as_array).into_iter().flatten() {
                    self.normalizer(Some(part));
                }
            }
            _ => {}
        }
    }

    /// What is added to a text on its own, as the post-processor says.
    fn processors(&mut self, processor: Option<&Value>, mut config: Option<&mut Map<String, Value>>) {
        let mut names = Names::of(config.as_deref());
        if let Some(config) = config.as_deref_mut() {
            names.stand_in(config);
        }
        let Some(processor) = processor else { return };
        let several = processor.get("processors").and_then(Value::as_array);
        for processor in several.map_or(std::slice::from_ref(processor), Vec::as_slice) {
            match processor.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => {
                    for role in ["bos", "eos"] {
                        if self.added(role).is_none() {
                            self.set_added(role, false);
                        }
                    }
                }
                Some("RobertaProcessing") => ["bos", "eos", "sep"].into_iter().for_each(|role| self.set_added(role, true)),
                Some("TemplateProcessing") => self.single_and_pair(processor, &mut names, config.as_deref_mut()),
                _ => {}
            }
        }
    }

    fn single_and_pair(&mut self, processor: &Value, names: &mut Names, mut config: Option<&mut Map<String, Value>>) {
        let list = |key: &str| processor.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (single, pair) = (list("single"), list("pair"));
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = single.first().and_then(special_id);
            last = single.last().and_then(special_id);
        }
        if let Some(first) = first {
            let begins = names.begins_with(first, config.as_deref_mut());
            self.set_added("bos", begins);
        }
        if let Some(last) = last {
            self.ends_with(last, names, config.as_deref_mut());
            self.set_added("eos", true);
        }
        if !pair.is_empty() {
            self.separates(pair, first, last, names, config);
        }
    }

    /// A text that ends with another token than the one that ends an answer: the latter ends a turn.
    fn ends_with(&mut self, last: &str, names: &mut Names, config: Option<&mut Map<String, Value>>) {
        let last = Value::from(last);
        let Some(config) = config else {
            names.eos = last;
            return;
        };
        if last == names.eos {
            return;
        }
        if let Some(role) = ["eot", "eom"].into_iter().find(|role| !self.roles.contains(role)) {
            self.roles.push(role);
            config.insert(format!("{role}_token"), names.eos.clone());
        }
        config.insert("eos_token".to_owned(), last.clone());
        names.eos = last;
    }

    /// Whether something stands between two texts.
    fn separates(
        &mut self,
        pair: &[Value],
        first: Option<&str>,
        last: Option<&str>,
        names: &Names,
        config: Option<&mut Map<String, Value>>,
    ) {
        let start = usize::from(first.is_some() && pair.first().and_then(special_id) == first);
        let ends = last.is_some() && pair.last().and_then(special_id) == last;
        let Some(pair) = pair.get(start..pair.len() - usize::from(ends)).filter(|pair| pair.len() > 2) else { return };
        let sequence = |value: Option<&Value>| value.and_then(|value| value.get("Sequence")?.get("id")?.as_str().map(str::to_owned));
        if sequence(pair.first()).as_deref() != Some("A") || sequence(pair.last()).as_deref() != Some("B") {
            return;
        }
        let between = &pair[1..pair.len() - 1];
        let separator = |value: &Value| special_id(value).is_some_and(|id| [&names.sep, &names.eos].contains(&&Value::from(id)));
        let add = (separator(&between[0]) && last.is_none()) || (between.len() == 2 && separator(&between[1]));
        self.set_added("sep", add);
        if let (true, false, Some(config)) = (add, truthy(&names.sep), config) {
            config.insert("sep_token".to_owned(), names.eos.clone());
        }
    }

    fn roles_of(&mut self, config: &Map<String, Value>, tokens: &[Added]) {
        for role in self.roles.clone() {
            if let (Some(add), None) = (config.get(&format!("add_{role}_token")).and_then(Value::as_bool), self.added(role)) {
                self.set_added(role, add);
            }
            let Some(entry) = config.get(&format!("{role}_token")) else { continue };
            let content = entry.as_str().or_else(|| entry.get("content")?.as_str());
            let id = content.and_then(|content| tokens.iter().find(|token| token.content == content)).map(|token| token.id);
            self.offer(role, id.map(Into::into));
        }
    }

    pub(super) fn write(&self, pairs: &mut Pairs) {
        self.write_ids(pairs);
        for (role, add) in &self.adds {
            if matches!(*role, "bos" | "eos" | "sep") {
                pairs.bool(format!("tokenizer.ggml.add_{role}_token"), *add);
            }
        }
        if let Some(template) = &self.template {
            template::write(pairs, template);
        }
        for (key, switch) in [("lowercase", self.lowercase), ("strip_accents", self.strip_accents)] {
            if let Some(switch) = switch {
                pairs.bool(format!("tokenizer.ggml.normalizer.{key}"), switch);
            }
        }
    }

    pub(super) fn write_ids(&self, pairs: &mut Pairs) {
        for (role, id) in &self.ids {
            let name = match *role {
                "unk" => "unknown",
                // So the key is spelt.
                "sep" => "seperator",
                "pad" => "padding",
                role @ ("bos" | "eos" | "mask" | "eot" | "eom") => role,
                _ => continue,
            };
            pairs.u32(format!("tokenizer.ggml.{name}_token_id"), (*id).into());
        }
    }
}

/// The tokens that a tokenizer's configuration names, each a text or an object.
struct Names {
    bos: Value,
    eos: Value,
    sep: Value,
    cls: Value,
}

impl Names {
    fn of(config: Option<&Map<String, Value>>) -> Self {
        let name = |role: &str| config.and_then(|config| config.get(&format!("{role}_token"))).cloned().unwrap_or_default();
        Self { bos: name("bos"), eos: name("eos"), sep: name("sep"), cls: name("cls") }
    }

    /// BERT's tokens take the place of those that begin and end.
    fn stand_in(&mut self, config: &mut Map<String, Value>) {
        for (name, other, key) in [(&mut self.bos, &self.cls, "bos_token"), (&mut self.eos, &self.sep, "eos_token")] {
            if !truthy(name) && truthy(other) {
                *name = other.clone();
                config.insert(key.to_owned(), other.clone());
            }
        }
    }

    /// Whether the token before a text is the one that begins texts; one that is unknown so far becomes it.
    fn begins_with(&mut self, first: &str, config: Option<&mut Map<String, Value>>) -> bool {
        let first = Value::from(first);
        match config {
            None => self.bos = first.clone(),
            Some(config) if first != self.bos && first != self.cls => {
                for (name, key) in [(&mut self.bos, "bos_token"), (&mut self.cls, "cls_token")] {
                    if !truthy(name) {
                        *name = first.clone();
                        config.insert(key.to_owned(), first.clone());
                    }
                }
            }
            Some(_) => {}
        }
        first == self.bos || first == self.cls
    }
}

fn special_id(value: &Value) -> Option<&str> {
    value.get("SpecialToken")?.get("id")?.as_str().filter(|id| !id.is_empty())
}

/// As Python takes it: null and nothing are false.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}
