//! Within what a question may be answered from the cache.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::domain::generation::Ask;

/// Answers are shared only where all of this is the same: the tenant, the model, and everything of a request but its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    tenant: Arc<str>,
    model_digest: Arc<str>,
    /// Of the system prompt, the template and all options.
    rest: [u8; 32],
}

impl Scope {
    /// `model_digest`: the content digest, or where there is none what else tells the model from others.
    #[must_use]
    pub fn new(tenant: &str, model_digest: &str, ask: &Ask) -> Self {
        Self { tenant: tenant.into(), model_digest: model_digest.into(), rest: rest(ask) }
    }

    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    #[must_use]
    pub fn model_digest(&self) -> &str {
        &self.model_digest
    }
}

/// A hash that nobody can make two requests share: written as JSON, each field has its own end.
fn rest(ask: &Ask) -> [u8; 32] {
    let prompt = &ask.prompt;
    let fields: [Value; 9] = [
        json!([prompt.suffix, prompt.system, prompt.template]),
        json!(prompt.context),
        json!(prompt.images),
        json!(prompt.raw),
        ask.format.as_ref().map_or(Value::Null, crate::domain::generation::Format::to_value),
        json!(ask.think),
        Value::Object(ask.options.to_map()),
        json!(ask.truncate),
        Value::Object(ask.extra.clone()),
    ];
    Sha256::digest(Value::from(fields.to_vec()).to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::generation::Prompt;
    use crate::domain::options::Options;

    fn ask() -> Ask {
        Ask { prompt: Prompt { text: "Hi".into(), system: Some("short".into()), ..Prompt::default() }, ..Ask::default() }
    }

    #[test]
    fn only_the_text_may_differ() {
        let scope = |ask: &Ask| Scope::new("t", "d", ask);
        let mut other = ask();
        other.prompt.text = "Hello".into();
        assert_eq!(scope(&ask()), scope(&other));
        let changes: [fn(&mut Ask); 8] = [
            |ask| ask.prompt.system = Some("long".into()),
            |ask| ask.prompt.system = None,
            |ask| ask.prompt.context = vec![1],
            |ask| ask.prompt.raw = true,
            |ask| ask.prompt.images = vec!["x".into()],
            |ask| ask.options = Options { seed: Some(1), ..Options::default() },
            |ask| ask.format = Some(crate::domain::generation::Format::Json),
            |ask| {
                ask.extra.insert("tools".into(), json!([1]));
            },
        ];
        for change in changes {
            let mut changed = ask();
            change(&mut changed);
            assert_ne!(scope(&ask()), scope(&changed), "{changed:?}");
        }
        assert_ne!(Scope::new("t", "d", &ask()), Scope::new("u", "d", &ask()));
        assert_ne!(Scope::new("t", "d", &ask()), Scope::new("t", "e", &ask()));
    }
}
