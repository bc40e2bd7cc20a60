//! One binary with every integration test: one link, and tests that share their doubles.

mod architecture;
