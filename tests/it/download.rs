//! Fetching models from a Hub on this machine, which does as a test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arriero::jobs::download::{Config, Error, Fetched, Hub};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What is done to a request for a file instead of answering it.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Bytes of the right number, but others.
    Other,
    /// A range is passed over, as some mirrors do.
    NoRange,
    Status(u16),
    /// More bytes than were announced in the listing.
    TooMany,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Taken one for each request for a file.
    faults: Vec<Option<Fault>>,
    token: Option<String>,
    /// Where files are redirected to.
    elsewhere: Option<SocketAddr>,
    seen: Vec<String>,
}

struct FakeHub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeHub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut files = BTreeMap::from([("config.json".to_owned(), b"{}".to_vec()), ("modeling.py".to_owned(), b"bad".to_vec())]);
        files.insert("model.safetensors".to_owned(), (0..300_000_u32).map(|i| (i * 31 % 251).to_le_bytes()[0]).collect());
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, state }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("unpoisoned"));
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let (url, token) = (format!("http://{}/", self.address), token.unwrap_or_default().to_owned());
        let config = Config { url, token, retries: 2, retry_pause: Duration::from_millis(1), ..Config::default() };
        Hub::new(config).expect("a client")
    }

    async fn fetch(&self, name: &str, into: &Path) -> Result<Fetched, Error> {
        self.hub(None).fetch(&name.parse().expect("a name"), into, &|_| {}, &CancellationToken::new()).await
    }

    fn seen(&self, part: &str) -> usize {
        self.state.lock().expect("unpoisoned").seen.iter().filter(|head| head.contains(part)).count()
    }
}

/// One request a connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = state.lock().expect("unpoisoned");
    state.seen.push(head.clone());
    if state.token.as_ref().is_some_and(|token| !head.contains(&format!("authorization: bearer {token}"))) {
        return write!(stream, "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let Some(file) = path.strip_prefix(&format!("/a/b/resolve/{COMMIT}/")) else {
        let listing = listing(&state).to_string();
        let known = path == "/api/models/a/b/revision/main?blobs=true";
        let status = if known { "200 OK" } else { "404 Not Found" };
        return write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{listing}", listing.len());
    };
    if let Some(place) = state.elsewhere {
        return write!(stream, "HTTP/1.1 302 Found\r\nlocation: http://{place}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let fault = if state.faults.is_empty() { None } else { state.faults.remove(0) };
    let bytes = state.files[file].clone();
    drop(state);
    send(stream, &head, bytes, fault)
}

fn listing(state: &State) -> serde_json::Value {
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let sibling = |(name, bytes): (&String, &Vec<u8>)| {
        let large = bytes.len() > 1000;
        let lfs = large.then(|| json!({"sha256": digest(bytes), "size": bytes.len(), "pointerSize": 134}));
        json!({"rfilename": name, "size": bytes.len(), "blobId": "x", "lfs": lfs})
    };
    json!({"sha": COMMIT, "siblings": state.files.iter().map(sibling).collect::<Vec<_>>()})
}

fn send(mut stream: TcpStream, head: &str, mut bytes: Vec<u8>, fault: Option<Fault>) -> std::io::Result<()> {
    let start = head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let start = start.filter(|_| fault != Some(Fault::NoRange));
    let size = bytes.len();
    let mut status = if start.is_some() { "206 Partial Content".to_owned() } else { "200 OK".to_owned() };
    bytes.drain(..start.unwrap_or(0).min(size));
    match fault {
        Some(Fault::Other) => bytes.fill(1),
        Some(Fault::Status(code)) => status = format!("{code} No"),
        Some(Fault::TooMany) => bytes.extend_from_slice(&[0; 5000]),
        _ => {}
    }
    let range = start.map_or_else(String::new, |start| format!("content-range: bytes {start}-{}/{size}\r\n", size - 1));
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{range}connection: close\r\n\r\n", bytes.len())?;
    let cut = if let Some(Fault::Cut(at)) = fault { at.min(bytes.len()) } else { bytes.len() };
    stream.write_all(&bytes[..cut])
}

fn is_whole(hub: &FakeHub, folder: &Path) -> bool {
    let expected = hub.state.lock().expect("unpoisoned").files["model.safetensors"].clone();
    let parts =
        std::fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "part"));
    std::fs::read(folder.join("model.safetensors")).is_ok_and(|bytes| bytes == expected) && parts.count() == 0
}

#[tokio::test]
async fn a_model_is_fetched_without_its_code_and_only_once() {
    let (hub, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    let told = Mutex::new(Vec::new());
    let hear = |news: arriero::jobs::download::Progress<'_>| told.lock().expect("unpoisoned").push((news.done_bytes, news.of_bytes));
    let name = "hf:A/B".to_ascii_lowercase().parse().expect("a name");
    let fetched = hub.hub(None).fetch(&name, folder.path(), &hear, &CancellationToken::new()).await.expect("fetched");
    assert_eq!((fetched.revision.as_str(), fetched.received_bytes), (COMMIT, 300_002));
    assert_eq!(fetched.files, [Path::new("config.json"), Path::new("model.safetensors")]);
    assert_eq!(told.into_inner().expect("unpoisoned").last(), Some(&(300_002, 300_002)));
    assert!(is_whole(&hub, folder.path()) && !folder.path().join("modeling.py").exists());
    assert_eq!(hub.fetch("a/b", folder.path()).await.expect("again").received_bytes, 0);
    // A file that was changed here is not taken for the Hub's.
    std::fs::write(folder.path().join("model.safetensors"), vec![0; 300_000]).expect("written");
    assert_eq!(hub.fetch("a/b", folder.path()).await.expect("again").received_bytes, 300_000);
    assert!(is_whole(&hub, folder.path()));
}

#[tokio::test]
async fn what_was_cut_goes_on_where_it_stopped() {
    for fault in [Fault::Cut(100_000), Fault::NoRange, Fault::Status(503), Fault::Other, Fault::TooMany] {
        let (hub, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
        // First the small file, then the large one: cut, spoilt, and whole in the end.
        hub.change(|state| state.faults = vec![None, Some(Fault::Cut(100_000)), Some(fault)]);
        let fetched = hub.fetch("a/b", folder.path()).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(is_whole(&hub, folder.path()));
        assert!(hub.seen("range: bytes=") >= 1, "it asked for the rest only");
        if fault == Fault::Cut(100_000) {
            assert_eq!(fetched.received_bytes, 300_002, "no byte came twice");
        }
    }
}

#[tokio::test]
async fn what_is_given_up_or_killed_is_gone_on_with_by_the_next_one() {
    let (hub, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.faults = [vec![None, Some(Fault::Cut(200_000))], vec![Some(Fault::Status(500)); 9]].concat());
    let error = hub.fetch("a/b", folder.path()).await.expect_err("fails");
    assert!(matches!(error, Error::Status { status: 500, .. }), "{error}");
    hub.change(|state| state.faults.clear());
    assert_eq!(hub.fetch("a/b", folder.path()).await.expect("fetched").received_bytes, 100_000);
    assert!(is_whole(&hub, folder.path()));
}

#[tokio::test]
async fn bytes_that_are_always_wrong_are_never_given_a_name() {
    let (hub, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.faults = [vec![None], vec![Some(Fault::Other); 9]].concat());
    let error = hub.fetch("a/b", folder.path()).await.expect_err("fails");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(!folder.path().join("model.safetensors").exists());
}

#[tokio::test]
async fn a_token_opens_what_is_closed_and_goes_nowhere_else() {
    let (hub, store, folder) = (FakeHub::start(), FakeHub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| (state.token, state.elsewhere) = (Some("s3cret".to_owned()), Some(store.address)));
    let error = hub.fetch("a/b", folder.path()).await.expect_err("closed").to_string();
    assert!(error.contains("make a token"), "{error}");
    let name = "a/b".parse().expect("a name");
    hub.hub(Some("s3cret")).fetch(&name, folder.path(), &|_| {}, &CancellationToken::new()).await.expect("fetched");
    assert!(hub.seen("s3cret") >= 2 && store.seen("/a/b/") >= 1);
    assert_eq!(store.seen("authorization"), 0, "the token is not for the place that files are redirected to");
    let wrong =
        hub.hub(Some("other")).fetch(&name, folder.path(), &|_| {}, &CancellationToken::new()).await.expect_err("closed").to_string();
    assert!(wrong.contains("with the account that the token is of") && !wrong.contains("other)"), "{wrong}");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let (hub, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    assert!(matches!(hub.fetch("a/c", folder.path()).await, Err(Error::NotFound { .. })));
    assert!(matches!(hub.fetch("a/b/x.gguf", folder.path()).await, Err(Error::Nothing { .. })));
    hub.change(|state| drop(state.files.insert("..\\x.json".to_owned(), Vec::new())));
    assert!(matches!(hub.fetch("a/b", folder.path()).await, Err(Error::Listing { .. })));
    let small = Config { url: format!("http://{}", hub.address), max_bytes: 1000, ..Config::default() };
    hub.change(|state| drop(state.files.remove("..\\x.json")));
    let fetching = Hub::new(small).expect("a client");
    let error =
        fetching.fetch(&"a/b".parse().expect("a name"), folder.path(), &|_| {}, &CancellationToken::new()).await.expect_err("too much");
    assert!(matches!(error, Error::TooMuch { .. }), "{error}");
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(matches!(hub.hub(None).fetch(&"a/b".parse().expect("a name"), folder.path(), &|_| {}, &cancel).await, Err(Error::Cancelled)));
}
