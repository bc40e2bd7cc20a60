//! A client for load: hyper on its own connection, `TCP_NODELAY` on, one request at a time, reused until the server closes.

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connecting to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("exchanging a message")]
    Exchange(#[from] hyper::Error),
    #[error("building a request")]
    Request(#[from] http::Error),
}

/// A connection to one server, opened when first needed and reopened when the server closed it.
pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Error> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.address).await.map_err(|error| Error::Connect(self.address, error))?;
            stream.set_nodelay(true).map_err(|error| Error::Connect(self.address, error))?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            // Ends when the sender is dropped or the server closes.
            crate::task::spawn(async move { drop(connection.await) });
            self.sender = None;
            return Ok(self.sender.insert(sender));
        }
        self.sender.as_mut().ok_or(Error::Connect(self.address, std::io::ErrorKind::NotConnected.into()))
    }

    /// Opens the connection, so that a later request does not pay for it.
    pub async fn connect(&mut self) -> Result<(), Error> {
        self.ready().await.map(|_| ())
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        self.send_with(method, path, &[], body).await
    }

    /// The same with more headers.
    pub async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        Ok(self.ready().await?.send_request(request).await?)
    }

    /// The same, and reads the answer to its end.
    pub async fn fetch(&mut self, method: Method, path: &str, body: Bytes) -> Result<(u16, Bytes), Error> {
        let response = self.send(method, path, body).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
