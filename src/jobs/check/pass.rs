//! Both models over the text, side by side: a few tokens through one, the same through the other, the rows compared and forgotten.

use super::row::{self, Row};
use super::side::Side;
use super::sums::{Comparison, Tally};
use super::text::Section;
use super::{Both, Error, Step, Work};
use crate::lm::Cache;

/// Tokens of which logits are kept at a time: those of a large vocabulary take a megabyte each.
const ROWS: usize = 32;
/// Shortest window that says anything.
const MIN_WINDOW: usize = 16;

/// The whole text, and its kinds one by one.
pub(super) fn run(work: &Work<'_>, sides: &Both<Side>, sections: &[Section]) -> Result<(Comparison, Vec<(String, Comparison)>), Error> {
    let texts = tokens(work, sides, sections)?;
    let of = texts.iter().map(|(_, windows)| windows.iter().map(Vec::len).sum::<usize>() as u64).sum();
    let mut pass = Pass { work, sides, done: 0, of };
    let (mut whole, mut kinds) = (Tally::default(), Vec::new());
    for (kind, windows) in &texts {
        let mut tally = Tally::default();
        windows.iter().try_for_each(|window| pass.window(window, &mut tally))?;
        whole.join(&tally);
        kinds.push((kind.clone(), tally.comparison()));
    }
    let whole = whole.comparison();
    if whole.tokens + whole.broken_tokens == 0 {
        return Err(Error::TooShort { tokens: usize::try_from(of).unwrap_or(usize::MAX) });
    }
    Ok((whole, kinds))
}

/// A kind, and its windows of tokens.
type Windows = (String, Vec<Vec<u32>>);

/// The windows of each section, as long as tokens are left to be read.
fn tokens(work: &Work<'_>, sides: &Both<Side>, sections: &[Section]) -> Result<Vec<Windows>, Error> {
    let context = sides.reference.model.config().context_length.min(sides.candidate.model.config().context_length);
    let size = work.spec.window.min(context).max(MIN_WINDOW);
    let mut left = work.spec.max_tokens;
    let mut all = Vec::new();
    for section in sections {
        let ids = sides.as_ref().map(|side| side.encode(&section.text));
        if ids.reference != ids.candidate {
            return Err(Error::Vocabulary { what: format!("other tokens for the section `{}`", section.kind) });
        }
        let bos = sides.reference.tokenizer.bos().filter(|_| sides.reference.tokenizer.adds_bos());
        let windows = windows(&ids.reference, bos, size, &mut left);
        all.push((section.kind.clone(), windows));
    }
    Ok(all)
}

/// Cuts tokens into windows that each begin as a text does.
fn windows(tokens: &[u32], bos: Option<u32>, size: usize, left: &mut usize) -> Vec<Vec<u32>> {
    let text = tokens.strip_prefix(bos.as_slice()).unwrap_or(tokens);
    let text = &text[..text.len().min(*left)];
    *left -= text.len();
    let size = size.saturating_sub(usize::from(bos.is_some())).max(1);
    let begun = |part: &[u32]| bos.iter().chain(part).copied().collect::<Vec<_>>();
    // A single token at the end is followed by none.
    text.chunks(size).map(begun).filter(|window| window.len() > 1).collect()
}

struct Pass<'a> {
    work: &'a Work<'a>,
    sides: &'a Both<Side>,
    done: u64,
    of: u64,
}

impl Pass<'_> {
    fn window(&mut self, tokens: &[u32], tally: &mut Tally) -> Result<(), Error> {
        let new_cache = |side: &Side| side.model.new_cache(tokens.len()).map_err(Error::run(side.role));
        let mut caches = self.sides.as_ref().try_map(new_cache)?;
        for (index, chunk) in tokens.chunks(ROWS).enumerate() {
            self.work.go_on(Step::Comparing, self.done, self.of)?;
            let logits = self.logits(chunk, &mut caches)?;
            let next = &tokens[(index * ROWS + 1).min(tokens.len())..tokens.len().min(index * ROWS + 1 + chunk.len())];
            for row in rows(&logits, self.sides.reference.model.config().vocab_size, next) {
                tally.add(row);
            }
            self.done += chunk.len() as u64;
        }
        self.work.go_on(Step::Comparing, self.done, self.of)
    }

    fn logits(&self, chunk: &[u32], caches: &mut Both<Cache>) -> Result<Both<Vec<f32>>, Error> {
        let of = |side: &Side, cache: &mut Cache| side.model.forward_all(chunk, cache).map_err(Error::run(side.role));
        Ok(Both {
            reference: of(&self.sides.reference, &mut caches.reference)?,
            candidate: of(&self.sides.candidate, &mut caches.candidate)?,
        })
    }
}

/// Compares rows, on all processors: of a large vocabulary this is as much work as running the model. The order stays.
fn rows(logits: &Both<Vec<f32>>, vocab_size: usize, next: &[u32]) -> Vec<Option<Row>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = next.len().div_ceil(threads).max(1);
    let row = |index: usize, next: u32| {
        let range = index * vocab_size..(index + 1) * vocab_size;
        row::compare(logits.reference.get(range.clone())?, logits.candidate.get(range)?, next)
    };
    let some = |(part, tokens): (usize, &[u32])| {
        tokens.iter().enumerate().map(|(index, next)| row(part * share + index, *next)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = next.chunks(share).enumerate().map(|part| scope.spawn(move || some(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_as_texts_do_and_lose_no_token() {
        let mut left = 100;
        let found = windows(&[1, 10, 11, 12, 13, 14, 15, 16], Some(1), 4, &mut left);
        assert_eq!(found, [vec![1, 10, 11, 12], vec![1, 13, 14, 15], vec![1, 16]]);
        assert_eq!(left, 93);
        let mut few = 5;
        assert_eq!(windows(&[10, 11, 12, 13, 14, 15], None, 4, &mut few), [vec![10, 11, 12, 13]]);
        assert_eq!(few, 0);
        assert!(windows(&[10, 11], None, 4, &mut few).is_empty());
    }

    #[test]
    fn rows_keep_their_order_whatever_the_threads() {
        let one = |peak: usize| (0..5).map(move |i| if i == peak { 3.0 } else { 0.0 });
        let logits: Vec<f32> = (0..5).flat_map(one).collect();
        let both = Both { reference: logits.clone(), candidate: logits };
        let found = rows(&both, 5, &[0, 0, 2, 0]);
        let cheap: Vec<bool> = found.iter().map(|row| row.expect("numbers").reference_loss < 1.0).collect();
        assert_eq!(cheap, [true, false, true, false]);
    }
}
