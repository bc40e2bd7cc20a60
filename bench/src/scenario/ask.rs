//! One request of a scenario and what its client heard, and the two ways in which clients come: closed and open loop.
//!
//! A client counts from the moment at which it meant to ask, so that a late start of its own is part of what it feels.

use super::world::Target;
use crate::{
    http1::client::Client,
    measure::{load, reader::Dialect},
    sse,
};
use anyhow::{Result, anyhow};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longer than any scenario.
pub const FOR_EVER: Duration = Duration::from_secs(40);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    pub model: String,
    pub prompt: String,
    pub stream: bool,
    pub options: Map<String, Value>,
    /// Fields only the gateway knows; not sent to a bare server.
    pub wishes: Map<String, Value>,
    /// Other fields of both dialects.
    pub fields: Map<String, Value>,
    pub key: Option<String>,
    /// When the client leaves.
    pub patience: Duration,
}

impl Ask {
    pub fn new(model: &str, prompt: impl Into<String>, tokens: usize) -> Self {
        let options = Map::from_iter([("num_predict".to_owned(), json!(tokens))]);
        let (wishes, fields) = (Map::new(), Map::new());
        Self { model: model.to_owned(), prompt: prompt.into(), stream: true, options, wishes, fields, key: None, patience: FOR_EVER }
    }

    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn wish(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.wishes.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }

    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    #[must_use]
    pub fn whole(mut self) -> Self {
        self.stream = false;
        self
    }

    fn body(&self, dialect: Dialect) -> String {
        let mut body = self.fields.clone();
        if dialect == Dialect::Native {
            body.extend(self.wishes.clone());
        }
        body.insert("model".into(), json!(self.model));
        body.insert("prompt".into(), json!(self.prompt));
        body.insert("stream".into(), json!(self.stream));
        body.insert("options".into(), Value::Object(self.options.clone()));
        Value::Object(body).to_string()
    }
}

/// What a waiting client was told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Seconds since it asked.
    pub at: f64,
    pub position: Option<u64>,
    pub eta: Option<f64>,
}

/// What a client heard. Times in seconds since it meant to ask.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// 0: the client left, or the connection broke.
    pub status: u16,
    pub began: Option<f64>,
    pub first: Option<f64>,
    pub total: f64,
    pub tokens: usize,
    pub text: String,
    pub queued: Vec<Told>,
    /// The final object.
    pub done: Option<Value>,
    pub error: Option<String>,
    pub retry_after: Option<f64>,
}

impl Heard {
    /// Answered to the end.
    pub fn served(&self) -> bool {
        self.status == 200 && self.done.is_some() && self.error.is_none()
    }

    /// Told not to wait, with a status.
    pub fn refused(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    fn line(&mut self, line: &[u8], at: f64) -> Result<()> {
        let read: Value = serde_json::from_slice(line)?;
        if let Some(error) = read.get("error") {
            self.error = Some(error.to_string());
        } else if read["done"] == true {
            self.done = Some(read);
        } else {
            self.token(read["response"].as_str().unwrap_or_default(), at);
        }
        Ok(())
    }

    fn token(&mut self, text: &str, at: f64) {
        self.first.get_or_insert(at);
        self.tokens += 1;
        self.text.push_str(text);
    }

    fn event(&mut self, event: &sse::Event, at: f64) -> Result<()> {
        if event.comment.is_some() {
            return Ok(());
        }
        let data: Value = serde_json::from_str(&event.data)?;
        match event.event.as_str() {
            "queued" => {
                let eta = data["eta_ms"].as_f64().map(|ms| ms / 1e3);
                self.queued.push(Told { at, position: data["position"].as_u64(), eta });
            }
            "start" => drop(self.began.get_or_insert(at)),
            "token" => self.token(data["text"].as_str().unwrap_or_default(), at),
            "done" => self.done = Some(data),
            "error" => {
                self.retry_after = data["retry_after_seconds"].as_f64();
                self.error = Some(event.data.clone());
            }
            _ => {}
        }
        Ok(())
    }
}

/// A client with a connection of its own.
pub struct Caller {
    target: Target,
    client: Client,
}

impl Caller {
    pub fn new(target: &Target) -> Self {
        Self { target: target.clone(), client: Client::new(target.address) }
    }

    /// Asks and listens to the end, or until the client's patience is over.
    pub async fn ask(&mut self, ask: &Ask, since: Instant) -> Heard {
        let mut heard = Heard::default();
        let left = ask.patience.saturating_sub(since.elapsed());
        let outcome = tokio::time::timeout(left, self.listen(ask, since, &mut heard)).await;
        heard.total = since.elapsed().as_secs_f64();
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => heard.error = Some(format!("{error:#}")),
            Err(_) => heard.error = Some("the client left".to_owned()),
        }
        if heard.error.is_some() {
            // Leaving means closing.
            self.client = Client::new(self.target.address);
        }
        heard
    }

    async fn listen(&mut self, ask: &Ask, since: Instant, heard: &mut Heard) -> Result<()> {
        let body = ask.body(self.target.dialect);
        let bearer = ask.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        let response = self.client.send_with(Method::POST, self.target.path, &headers, body.into()).await?;
        heard.status = response.status().as_u16();
        heard.retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        if heard.status != 200 || !ask.stream {
            let bytes = response.into_body().collect().await?.to_bytes();
            if heard.status == 200 {
                let done: Value = serde_json::from_slice(&bytes)?;
                done["response"].as_str().unwrap_or_default().clone_into(&mut heard.text);
                heard.done = Some(done);
            } else {
                heard.error = Some(String::from_utf8_lossy(&bytes).chars().take(500).collect());
            }
            return Ok(());
        }
        match self.target.dialect {
            Dialect::Ollama => lines(response.into_body(), since, heard).await,
            Dialect::Native => events(response.into_body(), since, heard).await,
        }?;
        if heard.done.is_none() && heard.error.is_none() { Err(anyhow!("the answer ended without its end")) } else { Ok(()) }
    }
}

async fn lines(mut body: Incoming, since: Instant, heard: &mut Heard) -> Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        for part in data.split_inclusive(|&byte| byte == b'\n') {
            pending.extend_from_slice(part);
            if part.ends_with(b"\n") {
                heard.line(&std::mem::take(&mut pending), since.elapsed().as_secs_f64())?;
            }
        }
    }
    Ok(())
}

async fn events(mut body: Incoming, since: Instant, heard: &mut Heard) -> Result<()> {
    let (mut parser, mut events) = (sse::Parser::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        parser.feed(data, &mut events);
        for event in events.drain(..) {
            heard.event(&event, since.elapsed().as_secs_f64())?;
        }
    }
    Ok(())
}

/// One request from a client of its own.
pub async fn once(target: &Target, ask: &Ask) -> Heard {
    Caller::new(target).ask(ask, Instant::now()).await
}

/// Waits for tasks that cannot be cancelled from elsewhere; one that panicked is lost and missed in the counts.
pub async fn gather<T: 'static>(mut set: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(joined) = set.join_next().await {
        all.extend(joined.ok());
    }
    all
}

/// Clients that ask again as soon as they were answered, or after a pause, until `span` is over; what is asked by then is
/// heard to its end. `make` gives the request of a client (from 0) and its number (from 0).
pub async fn closed(
    target: &Target,
    clients: usize,
    span: Duration,
    pause: Duration,
    make: impl Fn(usize, usize) -> Ask + Clone + Send + 'static,
) -> Vec<Heard> {
    let until = Instant::now() + span;
    let mut set = JoinSet::new();
    for client in 0..clients {
        let (mut caller, make) = (Caller::new(target), make.clone());
        set.spawn(async move {
            let mut heard = Vec::new();
            while Instant::now() < until {
                let since = Instant::now();
                let answer = caller.ask(&make(client, heard.len()), since).await;
                // Whoever is turned away tries again a little later, as people do.
                let pause = if answer.served() { pause } else { pause.max(Duration::from_millis(50)) };
                heard.push(answer);
                tokio::time::sleep(pause).await;
            }
            heard
        });
    }
    gather(set).await.into_iter().flatten().collect()
}

/// Requests at random moments (Poisson, seeded), whether earlier ones were answered or not.
pub async fn open(target: &Target, per_second: f64, span: Duration, seed: u64, make: impl Fn(usize) -> Ask) -> Result<Vec<Heard>> {
    let mut moments = load::pace(per_second, span, seed)?;
    let mut set = JoinSet::new();
    while let Some(moment) = moments.recv().await {
        set.spawn(single(target.clone(), make(set.len()), moment));
    }
    Ok(gather(set).await)
}

async fn single(target: Target, ask: Ask, since: Instant) -> Heard {
    Caller::new(&target).ask(&ask, since).await
}

/// All at once, in this order a millisecond apart.
pub async fn burst(target: &Target, asks: Vec<Ask>) -> Vec<Heard> {
    let mut set = JoinSet::new();
    for (number, ask) in asks.into_iter().enumerate() {
        let one = single(target.clone(), ask, Instant::now());
        set.spawn(async move { (number, one.await) });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut heard = gather(set).await;
    heard.sort_by_key(|(number, _)| *number);
    heard.into_iter().map(|(_, heard)| heard).collect()
}

/// What went wrong, without what was expected.
pub fn complaints<'a>(heard: impl IntoIterator<Item = &'a Heard>, expected: impl Fn(&Heard) -> bool) -> Vec<String> {
    let wrong = heard.into_iter().filter(|heard| !heard.served() && !expected(heard));
    wrong.map(|heard| format!("status {}: {}", heard.status, heard.error.as_deref().unwrap_or("no end"))).take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::count, *};
    use crate::{
        FakeOllama,
        fake::{Script, Text},
    };

    fn heard(events: &str) -> Heard {
        let mut heard = Heard { status: 200, ..Heard::default() };
        for (number, event) in sse::parse(events.as_bytes()).0.iter().enumerate() {
            heard.event(event, count(number)).expect("readable");
        }
        heard
    }

    #[test]
    fn a_stream_tells_its_wait_its_beginning_and_its_end() {
        let heard = heard(concat!(
            ": beat\n\n",
            "event: queued\ndata: {\"position\": 3, \"reason\": \"busy\", \"eta_ms\": 1500}\n\n",
            "event: start\ndata: {}\n\n",
            "event: token\ndata: {\"text\": \" a\"}\n\nevent: token\ndata: {\"text\": \" b\"}\n\n",
            "event: done\ndata: {\"done\": true}\n\n",
        ));
        assert_eq!((heard.text.as_str(), heard.tokens, heard.served()), (" a b", 2, true));
        assert_eq!((heard.queued[0].position, heard.queued[0].eta), (Some(3), Some(1.5)));
        assert_eq!((heard.began, heard.first), (Some(2.0), Some(3.0)));
    }

    #[test]
    fn an_error_in_a_stream_is_no_answer() {
        let heard =
            heard("event: token\ndata: {\"text\": \"a\"}\n\nevent: error\ndata: {\"code\": \"busy\", \"retry_after_seconds\": 2}\n\n");
        assert!(!heard.served() && !heard.refused());
        assert_eq!(heard.retry_after, Some(2.0));
    }

    #[test]
    fn a_bare_server_is_not_asked_what_only_the_gateway_knows() {
        let ask = Ask::new("m", "p", 3).wish("session", "s").field("raw", true);
        let body = |dialect| serde_json::from_str::<Value>(&ask.body(dialect)).expect("json");
        assert_eq!(body(Dialect::Native)["session"], "s");
        assert_eq!(body(Dialect::Ollama), json!({"raw": true, "model": "m", "prompt": "p", "stream": true, "options": {"num_predict": 3}}));
    }

    #[tokio::test]
    async fn who_loses_patience_leaves_and_the_server_knows() {
        let script = Script { text: Text::Words(50), token_gap: Duration::from_mins(1), ..Script::with_models(["m"]) };
        let fake = FakeOllama::spawn(script).await.expect("a free port");
        let target = Target { address: fake.address(), path: "/api/generate", dialect: Dialect::Ollama };
        let left = once(&target, &Ask::new("m", "p", 5).patience(Duration::from_millis(300))).await;
        assert!(!left.served() && left.error.is_some());
        fake.wait_for(|seen| seen.aborted == 1 && seen.in_flight == 0).await.expect("the server hears of it");
        fake.adjust(|script| script.token_gap = Duration::ZERO);
        let all = burst(&target, (0..5).map(|number| Ask::new("m", format!("p{number}"), 5)).collect()).await;
        assert!(all.iter().all(|heard| heard.served() && heard.tokens == 5));
        assert!(complaints(&all, |_| false).is_empty());
    }
}
