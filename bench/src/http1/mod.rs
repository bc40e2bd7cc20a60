//! Two HTTP/1.1 clients: [`raw`] shows every byte and how a connection ended, [`client`] is quick and reuses connections.

pub mod client;
pub mod raw;
