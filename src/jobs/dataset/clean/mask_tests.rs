use super::*;
use crate::jobs::dataset::example::samples::text;

fn masked(given: &str) -> (String, Vec<&'static str>) {
    let mut body = text(given).body;
    let found = Masker::new(&Masks::default()).apply(&mut body);
    (body.texts().collect(), found.into_iter().collect())
}

#[test]
fn every_pattern_is_sound() {
    assert_eq!(Masker::new(&Masks::default()).0.len(), 9);
    assert!(Masker::new(&Masks::none()).0.is_empty());
}

#[test]
fn what_is_secret_or_personal_is_masked() {
    let key = |prefix: &str, length: usize| prefix.to_owned() + &"a1B2".repeat(length / 4);
    for (secret, mask) in [
        (key("sk-", 48), "[API KEY]"),
        (key("sk-proj-", 48), "[API KEY]"),
        (key("sk-ant-api03-", 80), "[API KEY]"),
        (format!("AKIA{}", "IOSFODNN7EXAMPLE"), "[API KEY]"),
        (key("ghp_", 36), "[API KEY]"),
        (key("hf_", 32), "[API KEY]"),
        (format!("{}.{}.{}", key("eyJ", 20), key("eyJ", 40), key("x", 40)), "[TOKEN]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----".to_owned(), "[PRIVATE KEY]"),
        ("Max.Muster+x@mail.example.co.uk".to_owned(), "[EMAIL]"),
        ("DE89 3704 0044 0532 0130 00".to_owned(), "[IBAN]"),
        ("GB82WEST12345698765432".to_owned(), "[IBAN]"),
        ("4111 1111 1111 1111".to_owned(), "[CARD]"),
        ("5500-0000-0000-0004".to_owned(), "[CARD]"),
        ("+49 (0)89 636-48018".to_owned(), "[PHONE]"),
        ("0049 89 63648018".to_owned(), "[PHONE]"),
        ("089 / 63648018".to_owned(), "[PHONE]"),
        ("(212) 555-0187".to_owned(), "[PHONE]"),
        ("212-555-0187".to_owned(), "[PHONE]"),
        ("203.0.113.77".to_owned(), "[IP]"),
        ("2001:db8:85a3::8a2e:370:7334".to_owned(), "[IP]"),
    ] {
        let (out, found) = masked(&format!("It is {secret}, I think."));
        assert_eq!(out, format!("It is {mask}, I think."), "{secret}: {found:?}");
        assert_eq!(found.len(), 1, "{secret}");
    }
}

#[test]
fn what_only_looks_alike_is_left() {
    for innocent in [
        "the sk-learn library and sk-short",
        "4111 1111 1111 1112 has a wrong check digit",
        "FR14 2141 1311 1151 1513 1606 is no account",
        "on 01-02-2024 at 10:20:30, or 2024-01-02 03:04:05",
        "127.0.0.1 and 0.0.0.0 and 255.255.255.0 and 999.1.2.3",
        "std::collections::HashMap and a::b and ::1",
        "1234567890123456789012345 and 3.14159265358979",
        "someone @ home, @handle, a@b",
        "12:30:45 is a time",
    ] {
        assert_eq!(masked(innocent), (innocent.to_owned(), Vec::new()));
    }
}

#[test]
fn a_private_key_that_is_cut_off_is_masked_to_the_end() {
    assert_eq!(masked("x -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\nmore").0, "x [PRIVATE KEY]");
}
