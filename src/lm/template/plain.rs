//! The template for models that were trained on text alone: a transcript, with an example that shows what an answer looks like.

use super::Message;

/// A base model goes on and writes the other side's lines too.
pub(super) const STOPS: [&str; 3] = ["\nUser:", "\nSystem:", "\nAssistant:"];

const SYSTEM: &str = "You are a helpful assistant who answers in one short sentence.";
const QUESTION: &str = "What is the capital of Italy?";
const ANSWER: &str = "The capital of Italy is Rome.";

pub(super) fn render(messages: &[Message], asks: bool) -> String {
    let system = messages.iter().find(|message| message.role == "system").map_or(SYSTEM, |message| &message.content);
    let mut text = format!("System: {system}\nUser: {QUESTION}\nAssistant: {ANSWER}\n");
    for message in messages {
        let speaker = match message.role.as_str() {
            "system" => continue,
            "assistant" => "Assistant",
            _ => "User",
        };
        text.extend([speaker, ": ", &message.content, "\n"]);
    }
    if asks {
        text.push_str("Assistant:");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_a_transcript() {
        let messages = [Message::new("user", "Hi"), Message::new("assistant", "Hello."), Message::new("user", "Who are you?")];
        assert_eq!(
            render(&messages, true),
            "System: You are a helpful assistant who answers in one short sentence.\nUser: What is the capital of Italy?\n\
             Assistant: The capital of Italy is Rome.\nUser: Hi\nAssistant: Hello.\nUser: Who are you?\nAssistant:"
        );
        let own = render(&[Message::new("system", "Be rude."), Message::new("user", "Hi")], true);
        assert!(render(&messages, false).ends_with("\nUser: Who are you?\n"));
        assert!(own.starts_with("System: Be rude.\nUser: What") && own.ends_with("User: Hi\nAssistant:"));
    }
}
