//! Tests of the whole backend: recorded answers, and servers that misbehave.

use crate::domain::generation::{Control, Prompt, Request};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::options::Options;

pub fn request(model: &str, prompt: &str) -> Request {
    Request {
        id: RequestId::from_client("test-1").expect("a request id"),
        model: ModelName::parse(model).expect("a model name"),
        prompt: Prompt { text: prompt.to_owned(), ..Prompt::default() },
        options: Options::default(),
        format: None,
        think: None,
        keep_alive: None,
        truncate: None,
        deadline: None,
        control: Control::default(),
        extra: serde_json::Map::new(),
    }
}
