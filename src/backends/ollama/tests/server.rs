//! A server on a real socket that does exactly what a test says, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Long enough for a loaded machine, short enough to end a test that went wrong.
pub const LONG: Duration = Duration::from_secs(30);

pub struct Server {
    pub address: SocketAddr,
    pub received: Arc<Mutex<Vec<Received>>>,
    pub connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
pub struct Received {
    /// Request line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

/// One request on its connection.
pub struct Talk {
    /// The only handle of the socket, so that dropping it ends the connection.
    socket: BufReader<TcpStream>,
    over: bool,
    pub received: Received,
}

impl Server {
    /// Calls `answer` for each request that has arrived whole.
    pub fn start(answer: impl Fn(&mut Talk) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (received, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, count, answer) = (Arc::clone(&received), Arc::clone(&connections), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { address, received, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("unpoisoned").clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Received>>, answer: &dyn Fn(&mut Talk)) {
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let mut talk = Talk { socket: BufReader::new(stream), over: false, received: Received { head: String::new(), body: Vec::new() } };
    while !talk.over
        && let Some(received) = read_request(&mut talk.socket)
    {
        seen.lock().expect("unpoisoned").push(received.clone());
        talk.received = received;
        answer(&mut talk);
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |l| l.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(Received { head, body })
}

impl Talk {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may have left: that is what some tests are about.
        let _ = self.socket.get_mut().write_all(bytes.as_ref());
    }

    /// Status line, headers and an empty line.
    pub fn head(&mut self, status: &str, headers: &[&str]) {
        let lines = [format!("HTTP/1.1 {status}"), headers.join("\r\n")].join("\r\n");
        self.send(format!("{}\r\n\r\n", lines.trim_end()));
    }

    /// A whole answer.
    pub fn answer(&mut self, status: &str, headers: &[&str], body: &str) {
        let length = format!("Content-Length: {}", body.len());
        let headers: Vec<&str> = headers.iter().copied().chain([length.as_str()]).collect();
        self.head(status, &headers);
        self.send(body);
    }

    pub fn json(&mut self, body: &str) {
        self.answer("200 OK", &["Content-Type: application/json; charset=utf-8"], body);
    }

    /// The head of a stream.
    pub fn stream(&mut self) {
        self.head("200 OK", &["Content-Type: application/x-ndjson", "Transfer-Encoding: chunked"]);
    }

    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_chunk(bytes);
    }

    /// Fails once the client has left.
    pub fn try_chunk(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        self.socket.get_mut().write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    pub fn end(&mut self) {
        self.send("0\r\n\r\n");
    }

    /// Closes the connection once the test's part is over.
    pub fn close(&mut self) {
        self.over = true;
    }

    /// Resets it instead of closing it in order.
    pub fn reset(&mut self) {
        socket2::SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
        self.over = true;
    }

    /// Whether the client has closed the connection: waits for it.
    pub fn wait_for_close(&mut self) -> bool {
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(n) => n == 0,
            Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

/// A signal from the server's side to the test's.
pub fn signal() -> (Mutex<Sender<bool>>, Receiver<bool>) {
    let (sender, receiver) = channel();
    (Mutex::new(sender), receiver)
}
