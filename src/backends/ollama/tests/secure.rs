//! A server that speaks TLS.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::metadata::fixture;
use super::{DONE, outcome};
use crate::backends::Error;
use crate::backends::ollama::{Config, Ollama};

/// A certificate of nobody, to trust in tests.
pub fn certificate() -> PathBuf {
    fixture("tls/localhost.pem")
}

/// Answers each connection with one whole answer.
fn tls_server() -> u16 {
    let chain = CertificateDer::pem_file_iter(certificate()).expect("a file").map(|c| c.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(fixture("tls/localhost.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, socket);
            let mut request = Vec::new();
            // The body of the request ends it.
            while !request.ends_with(b"}") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                request.push(byte[0]);
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n", DONE.len());
            let _ = stream.write_all((head + DONE).as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn a_server_of_a_named_authority_is_trusted_and_another_is_not() {
    let port = tls_server();
    let config = |host: &str| Config { url: format!("https://{host}:{port}"), ca_file: Some(certificate()), ..Config::default() };
    let trusted = outcome(&Ollama::new(config("localhost")).expect("a client")).await;
    assert!(trusted.error.is_none(), "{trusted:?}");
    let other_name = outcome(&Ollama::new(config("127.0.0.1")).expect("a client")).await;
    let Error::Unreachable { message } = other_name.failure() else { panic!("{other_name:?}") };
    assert!(message.contains("TLS") && message.contains("certificate"), "{message}");
}

#[test]
fn certificates_that_cannot_be_read_are_told_of() {
    let missing = Config { ca_file: Some("/nowhere/ca.pem".into()), ..Config::default() };
    assert!(Ollama::new(missing).err().expect("refused").to_string().contains("/nowhere/ca.pem"));
    let wrong = Config { ca_file: Some(fixture("ollama-transcripts/README.md")), ..Config::default() };
    assert!(Ollama::new(wrong).err().expect("refused").to_string().contains("no certificate"));
}
