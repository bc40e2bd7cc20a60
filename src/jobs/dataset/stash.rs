//! Rows between two steps of a job: the canonical form, and where each row is from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use super::example::Example;
use super::import::read_line;

/// # Errors
/// When they cannot be written.
pub(super) fn write(path: &Path, rows: &[Example]) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
    for row in rows {
        writeln!(out, "{} {} {}", row.source, row.row, row.line())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// # Errors
/// When they cannot be read, or somebody else has written them.
pub(super) fn read(path: &Path) -> io::Result<Vec<Example>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a row between two steps is not as it was written");
    let mut rows = Vec::new();
    for line in BufReader::with_capacity(1 << 18, File::open(path)?).lines() {
        let line = line?;
        let mut parts = line.splitn(3, ' ');
        let (Some(source), Some(row), Some(json)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
        let (body, group) = read_line(json).map_err(|_| wrong())?;
        rows.push(Example { body, group, source: source.parse().map_err(|_| wrong())?, row: row.parse().map_err(|_| wrong())? });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::example::samples::{chat, text};
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows");
        let rows = vec![Example { source: 3, row: 77, group: Some("g h".to_owned()), ..chat("a b", "c\nd") }, text("{}")];
        write(&path, &rows).expect("written");
        assert_eq!(read(&path).expect("read"), rows);
        std::fs::write(&path, "0 1").expect("written");
        assert!(read(&path).is_err());
    }
}
