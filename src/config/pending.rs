use std::time::Duration;
use crate::domain::span;
use std::net::SocketAddr;
use std::path::PathBuf;
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub listen: SocketAddr,
    pub insecure_public_bind: bool,
    pub start_without_backend: bool,
    pub max_connections: usize,
    #[serde(with = "span")]
    pub header_timeout: Duration,
    pub max_header_bytes: usize,
    #[serde(with = "span")]
    pub write_stall_timeout: Duration,
    #[serde(with = "span")]
    pub shutdown_grace: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            insecure_public_bind: false,
            start_without_backend: false,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 32 << 10,
            write_stall_timeout: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Embedded { pub model: Option<PathBuf> }
