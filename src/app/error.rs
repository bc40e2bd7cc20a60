//! Why the process cannot start. Each says in one line what failed, why, and what to do.

use std::net::SocketAddr;

use crate::auth;
use crate::backends::ollama;
use crate::jobs;
use crate::storage;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "refusing to listen on {address}: others can reach it, and nothing asks who they are; \
         make a key first (`arriero keys create --role admin`; `auth.required` must not be \"never\"), listen on 127.0.0.1, \
         or say --insecure-public-bind if the network is trusted"
    )]
    PublicBind { address: SocketAddr },
    #[error(
        "refusing to listen on {address}: whoever reaches it would be the key `{key_name}`, and others can reach it; \
         listen on 127.0.0.1, or say --insecure-public-bind if the network is trusted"
    )]
    PublicIdentity { address: SocketAddr, key_name: String },
    #[error("cannot listen on {address}: another program does; stop it, or choose another address with --listen")]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error(transparent)]
    Keys(#[from] auth::Error),
    #[error("the backend {name} cannot be used: {source}")]
    Ollama { name: String, source: ollama::Error },
    #[error("two backends are called `{name}`: give each [[ollama]] its own `name`")]
    SameName { name: String },
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Embedded(#[from] crate::backends::embedded::LoadError),
    #[error(
        "nothing can serve a model: {}; start Ollama, give its address with --ollama URL, or serve a file with --model FILE.gguf \
         (`make run` fetches a small one)", reasons.join("; ")
    )]
    NoBackend { reasons: Vec<String> },
    #[error(transparent)]
    Jobs(#[from] jobs::Error),
    #[error("this program cannot be found, which works on jobs as a child process: {0}; set `jobs.program`")]
    Program(std::io::Error),
    #[error(transparent)]
    Task(#[from] super::supervisor::Failed),
    #[error("the fallback hierarchy makes no sense: {}", what.join("; "))]
    Routing { what: Vec<String> },
    #[error("the signals of the system cannot be listened to: {0}")]
    Signals(std::io::Error),
}
