//! A teacher at work, with a server that answers as it is told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::jobs::dataset::clean::Masks;

/// A server of one answer for each connection, and what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    /// `answer`: status, more headers and body for a request.
    fn new(answer: impl Fn(usize, &Value) -> (u16, &'static str, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("a client");
                let mut reader = BufReader::new(connection.try_clone().expect("a socket"));
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                let number = {
                    let mut all = heard.lock().expect("not poisoned");
                    all.push(body.clone());
                    all.len() - 1
                };
                let (status, headers, said) = answer(number, &body);
                let said = said.to_string();
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", said.len());
                let _ = connection.write_all((head + &said).as_bytes());
            }
        });
        Self { url, asked }
    }

    fn config(&self) -> Config {
        Config { url: self.url.clone(), retries: 2, retry_pause: Duration::from_millis(5), ..Config::default() }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn says(text: &str) -> (u16, &'static str, Value) {
    (200, "", json!({"response": text, "done_reason": "stop"}))
}

fn echo(_: usize, body: &Value) -> (u16, &'static str, Value) {
    says(&format!("about {}", body["prompt"].as_str().expect("a prompt")))
}

fn row(number: u64, turns: &[(Role, &str)]) -> Example {
    let turns = turns.iter().map(|(role, text)| Turn::new(*role, *text)).collect();
    Example { body: Body::Chat(turns), group: None, source: 0, row: number }
}

struct Desk {
    _folder: tempfile::TempDir,
    kept: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = kept_in(folder.path()).expect("made");
        Self { _folder: folder, kept }
    }

    fn teach(&self, teacher: &Teacher, rows: &[Example], config: &Config) -> Result<(Vec<Example>, Taught), Error> {
        let school = School { kept: &self.kept, file: None, accelerated: false, gateway: config };
        let clean = Clean { mask: Masks::default(), ..Clean::default() };
        teach((teacher, &clean, &school), rows.to_vec(), |example| format!("a:{}", example.row), &mut |done, whole| {
            assert!(done <= whole);
            Ok(())
        })
    }
}

fn questions() -> Vec<Example> {
    vec![
        row(1, &[(Role::User, "one")]),
        row(2, &[(Role::System, "be brief"), (Role::User, "two, from me@example.com")]),
        row(3, &[(Role::User, "  one\r\n")]),
        row(4, &[(Role::User, "own"), (Role::Assistant, "answer")]),
        row(5, &[(Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c")]),
    ]
}

fn last(example: &Example) -> &str {
    let Body::Chat(turns) = &example.body else { panic!("a conversation") };
    &turns.last().expect("a turn").content
}

#[test]
fn each_question_is_asked_once_masked_and_with_the_least_priority() {
    let (server, desk) = (Server::new(echo), Desk::new());
    let (rows, taught) = desk.teach(&Teacher::new("m"), &questions(), &server.config()).expect("taught");
    assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((last(&rows[0]), last(&rows[2]), last(&rows[3])), ("about one", "about one", "answer"));
    assert_eq!((taught.questions, taught.answered, taught.left_out.total()), (2, 3, 1));
    assert_eq!(taught.left_out.first(), Some("a:5"));
    let asked = server.asked();
    let of = |prompt: &str| asked.iter().find(|body| body["prompt"].as_str().is_some_and(|text| text.starts_with(prompt))).expect("asked");
    assert_eq!(asked.len(), 2);
    assert_eq!((&of("two")["prompt"], &of("two")["system"]), (&json!("two, from [EMAIL]"), &json!("be brief")));
    assert!(asked.iter().all(|body| body["priority"] == "batch" && body["model"] == "m"));

    // The same once more asks nothing, and other options everything.
    let again = desk.teach(&Teacher::new("m"), &questions(), &Config { url: "http://127.0.0.1:9".to_owned(), ..server.config() });
    assert_eq!(again.expect("taught"), (rows, taught));
    let hotter = Teacher { temperature: 0.7, ..Teacher::new("m") };
    desk.teach(&hotter, &questions(), &server.config()).expect("taught");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn rows_own_answers_are_replaced_where_that_is_wanted() {
    let (server, desk) = (Server::new(echo), Desk::new());
    let teacher = Teacher { answers: Answers::All, ..Teacher::new("m") };
    let mut rows = questions();
    rows.push(Example { body: Body::Text("text".to_owned()), ..rows[0].clone() });
    let (rows, taught) = desk.teach(&teacher, &rows, &server.config()).expect("taught");
    assert_eq!(last(&rows[3]), "about own");
    assert_eq!((taught.questions, taught.answered), (3, 4));
    assert_eq!(rows[4].body, Body::Text("text".to_owned()));
}

#[test]
fn answers_that_are_cut_empty_or_refused_cost_their_rows() {
    let server = Server::new(|_, body| match body["prompt"].as_str() {
        Some("cut") => (200, "", json!({"response": "x", "done_reason": "length"})),
        Some("empty") => says(" \n"),
        Some("refused") => (400, "", json!({"detail": "not that"})),
        _ => says("fine"),
    });
    let desk = Desk::new();
    let rows: Vec<Example> =
        (1..).zip(["cut", "empty", "refused", "good"]).map(|(row, ask)| self::row(row, &[(Role::User, ask)])).collect();
    let (left, taught) = desk.teach(&Teacher::new("m"), &rows, &server.config()).expect("taught");
    assert_eq!(left.iter().map(|row| row.row).collect::<Vec<_>>(), [4]);
    for why in ["answer cut off", "empty answer", "refused by the teacher"] {
        assert_eq!(taught.left_out.get(why), 1, "{why}");
    }
    // Only what was refused is asked again.
    desk.teach(&Teacher::new("m"), &rows, &server.config()).expect("taught");
    assert_eq!((server.asked().len(), server.asked()[4]["prompt"].as_str()), (5, Some("refused")));
    let nothing = desk.teach(&Teacher::new("m"), &rows[2..3], &server.config()).expect_err("nothing left");
    assert!(nothing.to_string().contains("1 refused by the teacher") && nothing.to_string().contains("not that"), "{nothing}");
}

#[test]
fn a_busy_teacher_is_asked_again_and_what_it_said_before_it_failed_is_kept() {
    let server = Server::new(|number, body| match number {
        0 => (429, "retry-after: 0\r\n", json!({"detail": "full"})),
        1 => (503, "", Value::Null),
        _ => echo(number, body),
    });
    let desk = Desk::new();
    let one = [row(1, &[(Role::User, "one")])];
    desk.teach(&Teacher::new("m"), &one, &server.config()).expect("taught");
    assert_eq!(server.asked().len(), 3);

    let failing =
        Server::new(|number, body| if number == 0 { echo(number, body) } else { (429, "retry-after: 0\r\n", json!({"detail": "full"})) });
    let config = Config { requests_at_once: 1, ..failing.config() };
    let two = [row(1, &[(Role::User, "first")]), row(2, &[(Role::User, "second")])];
    let error = desk.teach(&Teacher::new("m"), &two, &config).expect_err("no answer");
    assert!(matches!(&error, Error::Teacher { passing: true, why, .. } if why.contains("429: full")), "{error}");
    assert_eq!(failing.asked().len(), 4, "one answer, and three tries");
    let working = Server::new(echo);
    desk.teach(&Teacher::new("m"), &two, &working.config()).expect("taught");
    assert_eq!(working.asked().len(), 1, "what was answered is not asked again");
}

#[test]
fn openais_api_takes_conversations_of_several_turns() {
    let server = Server::new(|_, body| {
        let turns = body["messages"].as_array().expect("messages").len();
        (200, "", json!({"choices": [{"message": {"role": "assistant", "content": format!("after {turns}")}, "finish_reason": "stop"}]}))
    });
    let config = Config { url: format!("{}/v1", server.url), ..server.config() };
    let (rows, taught) = Desk::new().teach(&Teacher::new("m"), &questions(), &config).expect("taught");
    assert_eq!((rows.len(), last(&rows[1]), last(&rows[4]), taught.left_out.total()), (5, "after 2", "after 3", 0));
    assert!(server.asked().iter().all(|body| body["max_tokens"] == 512 && body.get("priority").is_none()));
}

#[test]
fn a_wait_that_is_asked_for_is_waited_for() {
    let server = Server::new(|number, body| if number == 0 { (429, "retry-after: 1\r\n", Value::Null) } else { echo(number, body) });
    let begun = std::time::Instant::now();
    Desk::new().teach(&Teacher::new("m"), &questions()[..1], &server.config()).expect("taught");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_teacher_that_is_not_there_ends_it_at_once_and_it_can_be_stopped() {
    let server = Server::new(|_, _| (404, "", json!({"detail": "there is no model `m`"})));
    let desk = Desk::new();
    let error = desk.teach(&Teacher::new("m"), &questions(), &Config { requests_at_once: 1, ..server.config() }).expect_err("none");
    assert!(matches!(&error, Error::Teacher { passing: false, .. }) && error.to_string().contains("there is no model `m`"), "{error}");
    assert_eq!(server.asked().len(), 1);
    let school = School { kept: &desk.kept, file: None, accelerated: false, gateway: &server.config() };
    let stopped = teach((&Teacher::new("m"), &Clean::default(), &school), questions(), |_| String::new(), &mut |_, _| Err(Error::Stopped));
    assert!(matches!(stopped, Err(Error::Stopped)));
    let file = desk.teach(&Teacher::new("t.gguf"), &questions(), &server.config()).expect_err("no file");
    assert!(file.to_string().contains("no file"), "{file}");
}

#[cfg(feature = "embedded")]
#[test]
fn a_file_that_cannot_be_run_is_named() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_qwen2-biases.gguf");
    let desk = Desk::new();
    let school = School { kept: &desk.kept, file: Some(&file), accelerated: false, gateway: &Config::default() };
    let teacher = Teacher { max_tokens: 8, ..Teacher::new("models/t.gguf") };
    let rows = vec![row(1, &[(Role::User, "one")])];
    let taught = teach((&teacher, &Clean::default(), &school), rows, |_| String::new(), &mut |_, _| Ok(()));
    // It has weights and no vocabulary.
    let error = taught.expect_err("no vocabulary").to_string();
    assert!(error.contains("the teacher `models/t.gguf`: its tokenizer cannot be used"), "{error}");
}
