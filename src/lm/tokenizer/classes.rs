//! Unicode's general categories, as the pre-tokenizers' patterns name them.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// The characters of one category.
pub(in crate::lm) struct Category {
    ascii: [bool; 128],
    /// Sorted, inclusive.
    ranges: Vec<(char, char)>,
}

impl Category {
    fn new(pattern: &str) -> Self {
        let ranges = match regex_syntax::parse(pattern).map(regex_syntax::hir::Hir::into_kind) {
            Ok(HirKind::Class(Class::Unicode(class))) => class.iter().map(|range| (range.start(), range.end())).collect(),
            // The patterns below are constants and classes, all of them.
            _ => Vec::new(),
        };
        let mut category = Self { ascii: [false; 128], ranges };
        for c in '\0'..='\x7f' {
            category.ascii[c as usize] = category.search(c);
        }
        category
    }

    fn search(&self, c: char) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= c);
        after > 0 && c <= self.ranges[after - 1].1
    }

    pub(in crate::lm) fn has(&self, c: char) -> bool {
        if c.is_ascii() { self.ascii[c as usize] } else { self.search(c) }
    }
}

pub(super) static LETTER: LazyLock<Category> = LazyLock::new(|| Category::new(r"\p{L}"));
pub(super) static NUMBER: LazyLock<Category> = LazyLock::new(|| Category::new(r"\p{N}"));
pub(super) static SPACE: LazyLock<Category> = LazyLock::new(|| Category::new(r"\s"));
/// Punctuation as the `default` pre-tokenizer sees it.
pub(super) static PUNCTUATION: LazyLock<Category> = LazyLock::new(|| Category::new(r"[\p{P}$+<=>^~|]"));
/// What may stand where upper case does, and where lower case does: characters without case may do both.
pub(super) static UPPER: LazyLock<Category> = LazyLock::new(|| Category::new(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"));
pub(super) static LOWER: LazyLock<Category> = LazyLock::new(|| Category::new(r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"));
/// For WordPiece: what is punctuation by Unicode alone, what is an accent, and what is no character at all.
pub(in crate::lm) static UNICODE_PUNCTUATION: LazyLock<Category> = LazyLock::new(|| Category::new(r"\p{P}"));
pub(in crate::lm) static ACCENT: LazyLock<Category> = LazyLock::new(|| Category::new(r"\p{Mn}"));
pub(in crate::lm) static OTHER: LazyLock<Category> = LazyLock::new(|| Category::new(r"\p{C}"));
