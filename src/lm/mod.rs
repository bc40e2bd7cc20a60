//! The language models themselves, on candle.
