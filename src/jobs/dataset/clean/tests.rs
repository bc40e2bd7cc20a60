use super::*;
use crate::jobs::dataset::example::samples::{chat, words};
use crate::jobs::dataset::example::{Body, Role, Turn};

fn clean(options: &Clean, rows: Vec<Example>) -> (Vec<String>, Cleaned) {
    let rows = (1..).zip(rows).map(|(row, example)| Example { row, ..example }).collect();
    let (kept, report) = options.apply(rows, |example| format!("x:{}", example.row), &mut |_| Ok(())).expect("cleaned");
    (kept.iter().map(Example::line).collect(), report)
}

fn long(n: u32, end: &str) -> Example {
    chat(&format!("question {n}"), &(words(n * 1_000..n * 1_000 + 80) + end))
}

#[test]
fn what_is_left_out_and_masked_is_reported_without_being_repeated() {
    let rows = vec![
        chat("Who  are you? ", "I am anna@example.org\r\n"),
        chat("who are you", "I am bert@example.org!"),
        chat("q", ""),
        long(1, "the end"),
        long(1, "the end."),
        long(1, "another"),
        long(2, "the end"),
    ];
    let (lines, report) = clean(&Clean::default(), rows.clone());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("I am [EMAIL]") && lines[0].contains("\"Who  are you?\""), "{}", lines[0]);
    assert_eq!(report.normalised, 1);
    let dropped: Vec<String> = report.dropped.iter().map(|(what, count)| format!("{what} {}", count.first.join(" "))).collect();
    assert_eq!(dropped, ["duplicate x:2 x:5", "empty x:3", "near duplicate x:6"]);
    assert_eq!((report.masked.get("e-mail address"), report.masked.first()), (2, Some("x:1")));
    let written = serde_json::to_string(&report).expect("JSON");
    assert!(!written.contains("anna") && !written.contains("bert"), "{written}");
    // With all rules off, nothing is changed, but rows without an answer are still none.
    let (lines, report) = clean(&Clean::nothing(), rows.clone());
    let there = [0, 1, 3, 4, 5, 6].map(|index: usize| rows[index].line());
    assert_eq!((lines.as_slice(), report.dropped.total(), report.normalised), (there.as_slice(), 1, 0));
}

#[test]
fn a_long_system_text_does_not_make_rows_near_duplicates() {
    let system = words(50_000..50_200);
    let rows = (0..20).map(|n| {
        let Body::Chat(turns) = long(n, "").body else { panic!("a conversation") };
        let turns = [vec![Turn::new(Role::System, system.clone())], turns].concat();
        crate::jobs::dataset::example::samples::example(Body::Chat(turns))
    });
    assert_eq!(clean(&Clean::default(), rows.collect()).0.len(), 20);
}

#[test]
fn rows_in_other_languages_are_left_out_where_that_is_wanted() {
    let english = "This is a sentence which everybody who speaks English is able to read and to understand without any trouble.";
    let german = "Das ist ein Satz, den alle, die der deutschen Sprache mächtig sind, ohne jede Mühe lesen und verstehen können.";
    let rows = vec![chat("q", english), chat("q", german), chat("q", "OK")];
    let options = Clean { languages: vec!["deu".to_owned()], ..Clean::default() };
    let (lines, report) = clean(&options, rows);
    assert_eq!((lines.len(), report.dropped.get("another language")), (2, 1));
    assert_eq!(report.languages.into_iter().collect::<Vec<_>>(), [("deu".to_owned(), 1), ("eng".to_owned(), 1)]);
    assert!(Clean { languages: vec!["en".to_owned()], ..Clean::default() }.validate().is_err());
}

#[test]
fn it_can_be_stopped() {
    let rows = vec![chat("q", "a")];
    let stopped = Clean::default().apply(rows, |_| String::new(), &mut |_| Err(Error::Stopped));
    assert!(matches!(stopped, Err(Error::Stopped)));
}
