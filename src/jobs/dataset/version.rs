//! What a data set is known by: a hash of its rows and of what was done to them.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::example::Example;
use super::split::Side;
use crate::domain::digest::Digest;

/// Grows when the canonical form of rows changes.
const FORM: &[u8] = b"arriero data set 1\n";

/// The SHA-256 of options and of the sides' rows in their order. Where the sources lay is no part of it.
#[must_use]
pub fn version(options: &serde_json::Value, sides: &[(Side, &[Example])]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(FORM);
    hasher.update(options.to_string());
    for (side, rows) in sides {
        hasher.update(format!("\n{} {}\n", side.name(), rows.len()));
        for row in *rows {
            hasher.update(row.line());
            hasher.update(b"\n");
        }
    }
    Digest::new(hasher.finalize().into())
}

/// Writes rows in the canonical form, one a line.
///
/// # Errors
/// Those of the writer.
pub fn write(rows: &[Example], out: &mut dyn Write) -> io::Result<()> {
    for row in rows {
        out.write_all(row.line().as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::example::samples::{chat, text};
    use super::*;

    #[test]
    fn a_version_tells_rows_sides_and_options_apart() {
        let (a, b) = ([chat("q", "a")], [text("t")]);
        let of = |options, sides: &[(Side, &[Example])]| version(&options, sides).hex();
        let one = of(json!({"seed": 1}), &[(Side::Train, &a), (Side::Test, &b)]);
        assert_eq!(one, of(json!({"seed": 1}), &[(Side::Train, &a), (Side::Test, &b)]));
        for other in [
            of(json!({"seed": 2}), &[(Side::Train, &a), (Side::Test, &b)]),
            of(json!({"seed": 1}), &[(Side::Train, &b), (Side::Test, &a)]),
            of(json!({"seed": 1}), &[(Side::Train, &a), (Side::Validation, &b)]),
        ] {
            assert_ne!(one, other);
        }
        let elsewhere = Example { row: 9, source: 4, ..a[0].clone() };
        assert_eq!(one, of(json!({"seed": 1}), &[(Side::Train, &[elsewhere]), (Side::Test, &b)]));
    }
}
