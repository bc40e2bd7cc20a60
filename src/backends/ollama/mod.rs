//! An Ollama server over HTTP.
