use serde_json::json;

use super::*;
use crate::jobs::dataset::example::samples::example;

fn line(row: &Value) -> String {
    example(read(row.as_object().expect("an object")).expect("a row")).line()
}

fn reason(row: &Value) -> Reason {
    read(row.as_object().expect("an object")).expect_err("refused")
}

fn messages(turns: &[(&str, &str)]) -> String {
    let turns: Vec<Value> = turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    json!({"messages": turns}).to_string()
}

#[test]
fn conversations_are_read_by_either_naming() {
    let expected = messages(&[("system", "s"), ("user", "u"), ("assistant", "a")]);
    let openai = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}, {"role": "assistant", "content": "a"}]});
    let sharegpt = json!({"system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "thanks"}]});
    let table = json!({"messages": openai["messages"].to_string()});
    for row in [&openai, &sharegpt, &table] {
        assert_eq!(line(row), expected, "{row}");
    }
}

#[test]
fn calls_of_tools_are_kept_as_text() {
    let row = json!({"tools": [{"name": "add"}], "messages": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "2"},
    ]});
    let call = "<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n</tool_call>";
    let system = "<tools>\n[{\"name\":\"add\"}]\n</tools>";
    assert_eq!(line(&row), messages(&[("system", system), ("user", "1+1?"), ("assistant", call), ("tool", "2"), ("assistant", "2")]));
}

#[test]
fn questions_with_answers_are_conversations() {
    let plain = messages(&[("user", "q"), ("assistant", "a")]);
    for row in [
        json!({"instruction": "q", "input": "", "output": "a"}),
        json!({"prompt": "q", "completion": "a"}),
        json!({"prompt": "q", "response": "a", "id": 7}),
        json!({"question": "q", "answer": "a"}),
        json!({"input": "q", "output": "a"}),
        json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}),
    ] {
        assert_eq!(line(&row), plain, "{row}");
    }
    let alpaca = json!({"system": "s", "instruction": "q", "input": "i", "output": 4, "history": [["x", "y"]]});
    assert_eq!(line(&alpaca), messages(&[("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "q\n\ni"), ("assistant", "4")]));
    assert_eq!(line(&json!({"text": "t", "answer": null})), r#"{"text":"t"}"#);
}

#[test]
fn preferences_are_read_from_texts_and_from_whole_conversations() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let expected =
        json!({"prompt": [turn("user", "q")], "chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}).to_string();
    let whole = |answer: &str| json!([turn("user", "q"), turn("assistant", answer)]);
    for row in [
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        json!({"chosen": whole("a"), "rejected": whole("b")}),
        json!({"prompt": "q", "chosen": whole("a"), "rejected": whole("b")}),
        serde_json::from_str(&expected).expect("JSON"),
    ] {
        assert_eq!(line(&row), expected, "{row}");
    }
    assert_eq!(reason(&json!({"prompt": "q", "chosen": "a", "rejected": "a"})), Reason::Same);
}

#[test]
fn what_cannot_be_learnt_from_has_a_reason() {
    let says = |role: &str, content: Value| json!({"messages": [{"role": role, "content": content}]});
    assert_eq!(reason(&says("user", json!("x"))), Reason::NoAnswer);
    assert_eq!(reason(&says("assistant", json!("x"))), Reason::Empty("prompt"));
    assert_eq!(reason(&says("nobody", json!("x"))), Reason::Role);
    assert_eq!(reason(&says("user", json!([{"type": "image_url"}]))), Reason::Media);
    assert_eq!(reason(&says("user", json!({"a": 1}))), Reason::Field("messages"));
    assert_eq!(reason(&json!({"prompt": "q", "completion": " "})), Reason::Empty("answer"));
    assert_eq!(reason(&json!({"prompt": "q", "completion": null})), Reason::Field("completion"));
    assert_eq!(reason(&json!({"text": " \n"})), Reason::Empty("text"));
    assert_eq!(reason(&json!({"x": 1, "y": 2})), Reason::Shape("x, y".to_owned()));
}

#[test]
fn questions_without_answers_are_read_where_somebody_is_going_to_answer() {
    let prompt = |row: &Value| read_prompt(row.as_object().expect("an object"));
    let question = messages(&[("system", "s"), ("user", "q")]);
    for row in [
        json!({"system": "s", "prompt": "q"}),
        json!({"system": "s", "instruction": "q", "input": "", "output": ""}),
        json!({"system": "s", "question": "q", "answer": null}),
        json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}),
        json!({"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]}),
    ] {
        let body = prompt(&row).expect("a row").unwrap_or_else(|| panic!("{row}"));
        assert_eq!(example(body).line(), question, "{row}");
        assert!(read(row.as_object().expect("an object")).is_err(), "{row}");
    }
    for row in [
        json!({"prompt": "q", "completion": "a"}),
        json!({"text": "t"}),
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "thanks"}]}),
        json!({"messages": [{"role": "system", "content": "s"}]}),
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        json!({"id": 7}),
    ] {
        assert_eq!(prompt(&row), Ok(None), "{row}");
    }
    assert_eq!(prompt(&json!({"prompt": "  "})), Err(Reason::Empty("prompt")));
}
