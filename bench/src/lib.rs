//! What Arriero is tested and measured with: a scripted Ollama, small HTTP clients, and side-by-side runs.
//!
//! The library is used by the gateway's own tests; the binary of the same package runs the fake server and the
//! measurements from a command line. Nothing here knows the gateway's code: it sees it over HTTP alone.

pub mod clock;
pub mod fake;
pub mod http1;
pub mod measure;
pub mod scenario;
pub mod sse;
pub mod task;

pub use fake::FakeOllama;
