//! The language models themselves, on candle.

pub mod tokenizer;
