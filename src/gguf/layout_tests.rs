use proptest::prelude::*;

use super::file_type::FileType;
use super::layout::{Error, Layout};
use super::{Header, Metadata, TensorKind, Value};

fn tensor(name: &str, dimensions: &[u64], kind: TensorKind) -> (String, Vec<u64>, TensorKind) {
    (name.to_owned(), dimensions.to_vec(), kind)
}

fn refused(metadata: &Metadata, tensors: Vec<(String, Vec<u64>, TensorKind)>) -> Error {
    Layout::new(metadata, tensors).expect_err("refused")
}

/// One value of each type.
fn all_values() -> Metadata {
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::U64(4),
        Value::I64(-4),
        Value::F32(0.5),
        Value::F64(-0.5),
        Value::Bool(true),
        Value::String("ünï".into()),
        Value::U8s(vec![1]),
        Value::I8s(vec![-1]),
        Value::U16s(vec![2, 3]),
        Value::I16s(vec![-2]),
        Value::U32s(vec![3]),
        Value::I32s(vec![-3]),
        Value::U64s(vec![4]),
        Value::I64s(vec![-4]),
        Value::F32s(vec![0.5]),
        Value::F64s(vec![-0.5]),
        Value::Bools(vec![true, false]),
        Value::Strings([&b"a"[..], b"", b"\xff"].into_iter().collect()),
    ];
    let mut metadata = Metadata::default();
    for (i, value) in values.into_iter().enumerate() {
        metadata.push(format!("key.{i}"), value);
    }
    metadata
}

#[test]
fn what_is_laid_out_is_read_again() {
    let tensors =
        vec![tensor("a", &[3], TensorKind::F32), tensor("b", &[256, 2, 1, 1], TensorKind::Q4_K), tensor("c", &[], TensorKind::F16)];
    for alignment in [None, Some(64)] {
        let mut metadata = all_values();
        if let Some(alignment) = alignment {
            metadata.push("general.alignment", Value::U32(alignment));
        }
        let layout = Layout::new(&metadata, tensors.clone()).expect("a layout");
        let mut file = Vec::new();
        layout.write_header(&mut file).expect("writes");
        file.resize(usize::try_from(layout.file_size_bytes()).expect("small"), 0);
        let header = Header::parse(&file).expect("sound");
        assert_eq!((&header.metadata, header.version, header.alignment), (&metadata, 3, layout.alignment()));
        assert_eq!(header.tensors, layout.tensors());
        assert_eq!(header.data_offset, layout.header().len() as u64);
        assert_eq!((&header.tensors[1].dimensions, &header.tensors[2].dimensions), (&vec![256, 2], &vec![1]));
        // The last one is padded too.
        let last = &layout.tensors()[2];
        assert_eq!(last.offset + last.size_bytes + layout.padding_after(last.size_bytes), layout.file_size_bytes());
    }
}

#[test]
fn an_empty_layout_is_a_padded_header() {
    let layout = Layout::new(Metadata::default(), Vec::new()).expect("a layout");
    assert_eq!((layout.header().len(), layout.file_size_bytes()), (32, 32));
}

#[test]
fn what_cannot_be_a_file_is_refused() {
    let none = Metadata::default();
    let long = "n".repeat(64);
    assert!(matches!(refused(&none, vec![tensor(&long, &[1], TensorKind::F32)]), Error::NameTooLong { .. }));
    let twice = vec![tensor("a", &[1], TensorKind::F32), tensor("a", &[1], TensorKind::F32)];
    assert_eq!(refused(&none, twice), Error::NameTwice { name: "a".into() });
    assert!(matches!(refused(&none, vec![tensor("a", &[2; 5], TensorKind::F32)]), Error::TooManyDimensions { count: 5, .. }));
    assert!(matches!(refused(&none, vec![tensor("a", &[100], TensorKind::Q4_0)]), Error::Shape { .. }));
    assert!(matches!(refused(&none, vec![tensor("a", &[1 << 40, 1 << 40], TensorKind::F32)]), Error::Shape { .. }));
    let large = |name: &str| tensor(name, &[1 << 61], TensorKind::F32);
    assert!(matches!(refused(&none, vec![large("a"), large("b")]), Error::TooLarge | Error::Shape { .. }));
    let half = |name: &str| tensor(name, &[1 << 60], TensorKind::F32);
    assert_eq!(refused(&none, vec![half("a"), half("b"), half("c"), half("d")]), Error::TooLarge);
    assert_eq!(refused(&none, vec![half("a"), half("b")]), Error::TooLarge);
    for alignment in [Value::U32(0), Value::U32(48), Value::U32(1 << 30), Value::U64(32)] {
        let mut metadata = Metadata::default();
        metadata.push("general.alignment", alignment);
        assert_eq!(refused(&metadata, Vec::new()), Error::Alignment);
    }
    let mut metadata = Metadata::default();
    metadata.push("k", Value::U8(1));
    metadata.push("k", Value::U8(2));
    assert_eq!(refused(&metadata, Vec::new()), Error::KeyTwice { key: "k".into() });
    let mut metadata = Metadata::default();
    metadata.push("k".repeat(65_536), Value::U8(1));
    assert!(matches!(refused(&metadata, Vec::new()), Error::KeyTooLong { .. }));
}

#[test]
fn metadata_can_be_changed() {
    let mut metadata = Metadata::default();
    metadata.push("a", Value::U8(1));
    metadata.set("b", Value::U8(2));
    metadata.set("a", Value::U8(3));
    assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", &Value::U8(3)), ("b", &Value::U8(2))]);
    assert_eq!((metadata.remove("a"), metadata.remove("a"), metadata.len()), (Some(Value::U8(3)), None, 1));
}

#[test]
fn types_of_files_are_named_as_people_do() {
    for kind in FileType::ALL {
        assert_eq!(kind.name().to_lowercase().parse(), Ok(*kind));
        assert_eq!(FileType::from_code(kind.code()), Some(*kind));
        let mut metadata = Metadata::default();
        metadata.push("general.file_type", Value::U32(kind.code()));
        let file = Layout::new(&metadata, Vec::new()).expect("a layout");
        assert_eq!(Header::parse(file.header()).expect("sound").file_type(), Some(kind.name()));
    }
    assert_eq!("q4_k".parse(), Ok(FileType::Q4_K_M));
    let error = "Q9\n".parse::<FileType>().expect_err("none").to_string();
    assert!(error.starts_with("`Q9\\n` is no type of file that can be written; choose one of F32, F16, BF16, Q8_0"), "{error}");
    assert!(FileType::Q2_K_S.needs_importance() && !FileType::Q2_K.needs_importance());
    assert!(FileType::Q8_0.is_quantized() && !FileType::BF16.is_quantized());
}

proptest! {
    #[test]
    fn any_layout_is_read_again(
        shapes in proptest::collection::vec((proptest::collection::vec(0_u64..5, 0..5), 0_usize..TensorKind::ALL.len()), 0..12),
        alignment in 0_u32..12,
    ) {
        let mut metadata = Metadata::default();
        metadata.push("general.alignment", Value::U32(1 << alignment));
        let tensors = shapes.into_iter().enumerate().map(|(i, (mut dimensions, kind))| {
            let kind = TensorKind::ALL[kind];
            if let Some(row) = dimensions.first_mut() {
                *row *= kind.block_size();
            } else {
                dimensions.push(kind.block_size());
            }
            (format!("tensor {i}"), dimensions, kind)
        });
        let Ok(layout) = Layout::new(&metadata, tensors.collect()) else { return Err(TestCaseError::fail("a layout")) };
        let mut file = layout.header().to_vec();
        file.resize(usize::try_from(layout.file_size_bytes()).expect("small"), 0);
        match Header::parse(&file) {
            Ok(header) => prop_assert_eq!(header.tensors, layout.tensors()),
            // Readers may refuse tensors of no numbers and alignments of less than eight.
            Err(error) => prop_assert!(error.to_string().contains("lignment") || error.to_string().contains("dimension"), "{}", error),
        }
    }
}
