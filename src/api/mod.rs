//! HTTP, and only HTTP.
