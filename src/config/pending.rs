use std::net::SocketAddr;
use std::path::PathBuf;
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server { pub listen: SocketAddr, pub max_connections: usize }
impl Default for Server { fn default() -> Self { Self { listen: SocketAddr::from(([127,0,0,1],8000)), max_connections: 10_000 } } }
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ollama { pub url: String, pub name: Option<String> }
impl Default for Ollama { fn default() -> Self { Self { url: "http://127.0.0.1:11434".into(), name: None } } }
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Embedded { pub model: Option<PathBuf> }
