use std::io::Write as _;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;

/// What is read of a file with this content.
fn read_with(name: &str, content: &[u8], limits: &Limits, source: &Source) -> Result<(Vec<String>, Intake), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    File::create(&path).and_then(|mut file| file.write_all(content)).expect("written");
    let mut import = Import::new(limits, None);
    let source = Source { path: name.to_owned(), ..source.clone() };
    let intake = import.read(File::open(&path).expect("there"), &source, 0, &mut |_| Ok(()))?;
    Ok((import.examples.iter().map(Example::line).collect(), intake))
}

fn lenient() -> Limits {
    Limits { max_bad_share: 1.0, ..Limits::default() }
}

fn read(name: &str, content: &str) -> (Vec<String>, Intake) {
    read_with(name, content.as_bytes(), &lenient(), &Source::new(name)).expect("read")
}

const ONE: &str = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#;

#[test]
fn every_format_is_read() {
    for (name, content) in [
        ("a.jsonl", "\n{\"prompt\":\"q\",\"completion\":\"a\"}\r\n  \n"),
        ("a.json", "\u{feff}[ {\"prompt\":\"q\",\"completion\":\"a\"} ]"),
        ("a.json", "{\"about\": {\"x\": [1, \"]}\"]}, \"data\": [\n{\"prompt\":\"q\",\"completion\":\"a\"}\n], \"more\": 1}"),
        ("a.csv", "\u{feff}prompt,completion\nq,a\n"),
        ("a.csv", "completion;prompt;x\r\n\"a\";q;\"1;2\"\r\n"),
        ("a.tsv", "prompt\tcompletion\nq\ta"),
    ] {
        let (lines, intake) = read(name, content);
        assert_eq!(lines, [ONE], "{name}: {intake:?}");
        assert_eq!((intake.rows, intake.kept), (1, 1));
    }
    assert_eq!(read("a.txt", "\n\none\ntwo\n \n\nthree").0, [r#"{"text":"one\ntwo"}"#, r#"{"text":"three"}"#]);
    let document = Source { format: Some(Format::Document), ..Source::new("a") };
    let (lines, _) = read_with("a.txt", b"one\n\ntwo", &lenient(), &document).expect("read");
    assert_eq!(lines, [r#"{"text":"one\n\ntwo"}"#]);
}

#[test]
fn fields_can_be_called_otherwise_and_groups_are_kept() {
    let source = Source {
        fields: [("q".to_owned(), "prompt".to_owned()), ("a".to_owned(), "completion".to_owned())].into(),
        ..Source::new("x.csv")
    };
    let (lines, _) = read_with("x.csv", b"q,a,group\nq,a,7\n", &lenient(), &source).expect("read");
    assert_eq!(lines, [ONE.replace("]}", "],\"group\":\"7\"}")]);
    // What is written is read as it was.
    assert_eq!(read("again.jsonl", &lines[0]).0, lines);
}

#[test]
fn bad_rows_are_counted_with_their_lines() {
    let content = [ONE, "{\"prompt\": \"q\"", "7", "{\"a\": 1}", "{\"prompt\": \"q\", \"completion\": \"\"}", ONE].join("\n");
    let (lines, intake) = read("a.jsonl", &content);
    assert_eq!((lines.len(), intake.rows, intake.kept, intake.bad.total()), (2, 6, 2, 4));
    let shown: Vec<String> = intake.bad.iter().map(|(what, count)| format!("{what}: {}", count.first.join(", "))).collect();
    assert!(shown.iter().any(|line| line.starts_with("not JSON: 2: it is not JSON: EOF")), "{shown:?}");
    assert!(shown.iter().any(|line| line == "no object: 3: it is JSON, but no object with fields"), "{shown:?}");
    assert!(shown.iter().any(|line| line == "unknown shape: 4: its fields are of no known shape: a"), "{shown:?}");
    let strict = read_with("a.jsonl", content.as_bytes(), &Limits::default(), &Source::new("a")).expect_err("too many");
    assert!(strict.to_string().contains("4 of 6 rows") && strict.to_string().contains("max_bad_share"), "{strict}");
}

#[test]
fn a_list_is_read_as_far_as_it_goes() {
    let (lines, intake) = read("a.json", &format!("[{ONE},\n{{\"x\": ]}},\n 3, {ONE},\n {{\"prompt\": \"q"));
    // Behind a bracket too many there is no telling what is what.
    assert_eq!((lines.len(), intake.rows, intake.bad.get("not JSON")), (1, 3, 2), "{intake:?}");
    let (lines, intake) = read("a.json", &format!("[{ONE},\n 3, {ONE},\n {{\"prompt\": \"q"));
    assert_eq!((lines.len(), intake.bad.get("cut off")), (2, 1));
    assert_eq!(intake.bad.iter().map(|(_, count)| count.first[0].clone()).collect::<Vec<_>>()[0], "3: the file ends within it");
    let none = read_with("a.json", b"{\"a\": {\"data\": []}}", &lenient(), &Source::new("a")).expect("a line of JSON").1;
    assert_eq!(none.kept, 0);
    for content in ["{\n\"a\": 1}", "7", "", "{\n\"data\": {}}"] {
        let error = read_with("a.json", content.as_bytes(), &lenient(), &Source::new("a")).expect_err(content);
        assert!(error.to_string().contains("without a list"), "{error}");
    }
}

#[test]
fn a_row_without_an_end_costs_neither_memory_nor_the_rows_around_it() {
    let limits = Limits { max_row_bytes: 1_000, ..lenient() };
    let long = "x".repeat(10 << 20);
    let of = |name: &str, content: String| read_with(name, content.as_bytes(), &limits, &Source::new(name)).expect("read");
    for (name, content, kept) in [
        ("a.jsonl", format!("{ONE}\n{long}\n{ONE}"), 2),
        ("a.json", format!("[{ONE},\n\"{long}\",{ONE}]"), 2),
        ("a.json", format!("[{ONE},\n{}", "[".repeat(1 << 20)), 1),
        ("a.csv", format!("prompt,completion\nq,a\n\"{long}"), 1),
        ("a.txt", format!("one\n\n{long}\n\ntwo"), 2),
    ] {
        let (lines, intake) = of(name, content);
        assert_eq!((lines.len(), intake.bad.total()), (kept, 1), "{name}: {intake:?}");
    }
    let nested = format!("{{\"text\": {}{}}}", "[".repeat(400), "]".repeat(400));
    assert_eq!(of("a.jsonl", nested).1.bad.get("not JSON"), 1);
    let wide = read_with("a.csv", ",".repeat(9_999).as_bytes(), &lenient(), &Source::new("a.csv")).expect_err("too wide");
    assert!(wide.to_string().contains("too many"), "{wide}");
}

#[test]
fn what_is_no_text_is_told() {
    let of = |name: &str, content: &[u8]| read_with(name, content, &lenient(), &Source::new(name)).expect("read").1.bad;
    assert_eq!(of("a.jsonl", b"{\"text\": \"\xff\"}").get("not UTF-8"), 1);
    assert_eq!(of("a.csv", b"text\n\xff\n").get("not UTF-8"), 1);
    assert_eq!(of("a.txt", b"\xff\n").get("not UTF-8"), 1);
    assert_eq!(of("a.csv", b"a,b\n1\n1,2,3\n").get("wrong number of fields"), 2);
}

#[test]
fn a_set_has_so_many_rows_and_bytes() {
    let content = [ONE, ONE, ONE].join("\n");
    let of = |limits: &Limits| read_with("a.jsonl", content.as_bytes(), limits, &Source::new("a")).expect_err("too much");
    assert!(matches!(of(&Limits { max_rows: 2, ..lenient() }), Error::Rows { rows: 2 }));
    assert!(matches!(of(&Limits { max_bytes: 5, ..lenient() }), Error::Bytes { bytes: 5 }));
}

/// A Parquet file with the columns `prompt` and `completion`, two rows.
fn parquet(compression: parquet::basic::Compression) -> Vec<u8> {
    let schema = "message schema { OPTIONAL BYTE_ARRAY prompt (UTF8); OPTIONAL BYTE_ARRAY completion (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).expect("made");
    let mut group = writer.next_row_group().expect("made");
    for values in [["q", "r"], ["a", "b"]] {
        let mut column = group.next_column().expect("made").expect("a column");
        let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&[1, 1]), None).expect("written");
        column.close().expect("closed");
    }
    group.close().expect("closed");
    writer.close().expect("closed");
    bytes
}

#[test]
fn parquet_is_read() {
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    let (gzip, zstd) = (Compression::GZIP(GzipLevel::default()), Compression::ZSTD(ZstdLevel::default()));
    for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED, gzip, zstd, Compression::LZ4, Compression::LZ4_RAW] {
        let (lines, intake) = read_with("a.parquet", &parquet(compression), &lenient(), &Source::new("a")).expect("read");
        assert_eq!((lines[0].as_str(), lines.len(), intake.format.as_str()), (ONE, 2, "parquet"));
    }
}

#[test]
fn broken_parquet_is_refused_and_does_not_end_the_program() {
    let whole = parquet(parquet::basic::Compression::SNAPPY);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let outcomes: Vec<bool> = (0..whole.len())
        .step_by(3)
        .map(|at| {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            read_with("a.parquet", &broken, &lenient(), &Source::new("a")).is_ok()
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(outcomes.iter().any(|ok| !ok));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_rows_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..400), name in 0..6_usize) {
        let name = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a"][name];
        let _ = read_with(name, &bytes, &Limits { max_row_bytes: 100, ..lenient() }, &Source::new(name));
    }

    #[test]
    fn any_json_is_a_row_or_a_reason(text in r#"(\[|\{|"messages":|"role":|"content":|"from":|"chosen":|"rejected":|"prompt":|"user"|"x"|null|7|,|\]|\}|\n){0,60}"#) {
        for name in ["a.jsonl", "a.json"] {
            let _ = read_with(name, text.as_bytes(), &lenient(), &Source::new(name));
        }
    }
}
