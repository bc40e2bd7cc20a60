//! The GGUF file format. No candle, no inference.
