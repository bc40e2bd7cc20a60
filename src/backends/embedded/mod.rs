//! Inference in this process.
//!
//! Each model has one thread that works on a bounded number of answers in turn; a bounded number of requests wait, the others are
//! refused at once. Dropping an answer's stream stops its work before the next token or chunk of prompt.
//! Promises: what a request asks for is honoured, refused ([`Error::Unsupported`]), or listed in the
//! remarks at its end, never ignored; the same request with the same seed gives the same text; text never ends inside a
//! character; a failure in one answer leaves the others alone.
//! It does not batch answers into one step yet, nor constrain them to a format, nor unload models.

mod config;
mod decoder;
mod embedding;
mod load;
mod prompt;
mod queue;
mod sampling;
mod sequence;
mod settings;
mod stops;
#[cfg(test)]
mod tests;
mod worker;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc::{self, Receiver};

use super::{Backend, Error, Events, Health, Kind, Probe};
use crate::domain::generation::{Event, Finish, FinishReason, Remarks, Request, Timing, Usage};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;
use crate::lm::Device;
use crate::lm::tokenizer::Tokenizer;

pub use config::Config;
pub use load::Error as LoadError;

use decoder::Decoder;
use embedding::Embedding;
use load::{Candidate, Loaded};
use prompt::{Assembler, check_supported};
use queue::{Phase, Queue};
use sequence::Job;
use settings::Settings;
use worker::Worker;

/// Events that wait for a slow reader before its answer is held up.
const EVENTS: usize = 64;

/// The models of this process.
#[derive(Debug)]
pub struct Engine {
    models: Vec<Arc<Served>>,
    /// The model that gives vectors.
    embedding: Option<Embedding>,
    device: String,
}

/// One model, its thread and the way to it.
#[derive(Debug)]
struct Served {
    info: ModelInfo,
    assembler: Assembler,
    context: usize,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Loads all models. Takes a second or so for each: call it where blocking is allowed.
    ///
    /// # Errors
    /// When a file is missing, broken or not supported, or the models do not fit the memory. Nothing runs then.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        let embedding_model = Some(config.embedding_model.as_path()).filter(|path| !path.as_os_str().is_empty());
        if config.models.is_empty() && embedding_model.is_none() {
            return Err(LoadError::NoModels);
        }
        let threads = Some(config.threads).filter(|threads| *threads > 0);
        let device = Device::choose(config.device, threads).map_err(LoadError::Device)?;
        let candidates: Vec<Candidate> = config.models.iter().map(|path| Candidate::open(path, config)).collect::<Result<_, _>>()?;
        load::check_names(&candidates)?;
        let available = config.memory_limit_bytes.or_else(|| load::available_memory().filter(|_| device.is_cpu()));
        let embedder_bytes = embedding_model.map_or(Ok(0), embedding::needed_bytes)?;
        load::check_memory(&candidates, config.slots.max(1), embedder_bytes, available)?;
        let embedding = embedding_model.map(|path| Embedding::load(path, &device, config)).transpose()?;
        if let Some(embedding) = &embedding
            && candidates.iter().any(|candidate| candidate.name == embedding.info.name)
        {
            return Err(LoadError::SameName { name: embedding.info.name.clone() });
        }
        let mut models = Vec::new();
        for candidate in candidates {
            let context = candidate.context as usize;
            let Loaded { model, tokenizer, template, info } = candidate.load(&device, config.chat_template.as_deref())?;
            let assembler = Assembler { tokenizer: Arc::new(tokenizer), template };
            models.push(Arc::new(Served::start(model, assembler, info, context, config)?));
        }
        Ok(Self { models, embedding, device: device.describe() })
    }

    /// Takes no more requests, lets those that run come to their end, and waits for that.
    pub async fn close(&self) {
        for served in &self.models {
            served.queue.advance(Phase::Closing);
        }
        if let Some(embedding) = &self.embedding {
            embedding.close();
        }
        for served in &self.models {
            let served = Arc::clone(served);
            // Only a panic or the end of the runtime can fail this, and neither leaves something to wait for.
            let _ = tokio::task::spawn_blocking(move || served.join()).await;
        }
    }

    fn find(&self, request: &Request) -> Result<&Arc<Served>, Error> {
        if self.embedding.as_ref().is_some_and(|embedding| embedding.info.name == request.model) {
            let why = format!("`{}` turns texts into vectors, it does not generate", request.model);
            return Err(Error::Unsupported { field: "model", why });
        }
        let found = self.models.iter().find(|served| served.info.name == request.model);
        found.ok_or_else(|| Error::ModelNotFound { model: request.model.as_str().to_owned() })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for served in &self.models {
            served.queue.advance(Phase::Stopped);
        }
    }
}

impl Served {
    fn start<D: Decoder>(decoder: D, assembler: Assembler, info: ModelInfo, context: usize, config: &Config) -> Result<Self, LoadError> {
        let queue = Arc::new(Queue::new(config.slots.max(1), config.queue));
        let tokenizer: Arc<Tokenizer> = Arc::clone(&assembler.tokenizer);
        let worker = Worker::new(decoder, tokenizer, Arc::clone(&queue), context);
        let name = format!("engine {}", info.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || work(worker)).map_err(LoadError::Thread)?;
        Ok(Self { info, assembler, context, queue, thread: Mutex::new(Some(thread)) })
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Settings and tokens of a request. Long prompts take a while.
    fn prepare(&self, request: &Request) -> Result<(Settings, prompt::Assembled), Error> {
        let plain = self.assembler.is_plain(&request.ask.prompt).then(|| self.assembler.template.stops());
        let settings = Settings::new(request, self.context, plain, random())?;
        let prompt = self.assembler.assemble(&request.ask.prompt)?.fit(settings.context, request)?;
        Ok((settings, prompt))
    }

    async fn generate(self: Arc<Self>, request: Arc<Request>) -> Result<Events, Error> {
        let accepted = Instant::now();
        check_supported(&request)?;
        if !self.queue.is_open() {
            return Err(Error::Closed);
        }
        if request.ask.prompt.text.is_empty() {
            let settings = Settings::new(&request, self.context, None, 0)?;
            return Ok(stream::iter([Ok(loaded(&settings, accepted))]).boxed());
        }
        let gives_context = !request.ask.prompt.raw;
        let served = Arc::clone(&self);
        let prepared = tokio::task::spawn_blocking(move || served.prepare(&request)).await;
        let failed = |_| Error::Failed { status: None, message: "the prompt could not be prepared".to_owned() };
        let (settings, prompt) = prepared.map_err(failed)??;
        let (events, receiver) = mpsc::channel(EVENTS);
        self.queue.push(Job { prompt, settings, events, gives_context, accepted })?;
        Ok(Answer { receiver, queue: Arc::clone(&self.queue), ended: false }.boxed())
    }
}

/// Runs the engine's thread. Whatever ends it, nobody is left waiting.
fn work<D: Decoder>(worker: Worker<D>) {
    let queue = worker.queue();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
    if ended.is_err() {
        tracing::error!("the engine's thread has failed");
    }
    queue.advance(Phase::Stopped);
    // Streams whose sender goes away report it.
    drop(queue.take(0));
}

/// The answer to a request that only wanted the model to be there.
fn loaded(settings: &Settings, accepted: Instant) -> Event {
    Event::Done(Box::new(Finish {
        reason: FinishReason::Load,
        context: None,
        usage: Usage::default(),
        timing: Timing { total: Some(accepted.elapsed()), ..Timing::default() },
        remarks: Remarks { not_applied: settings.not_applied.clone(), truncated: None, changed: Vec::new() },
        extra: serde_json::Map::new(),
    }))
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// The stream of an answer. Tells the engine when there is room again, and when nobody reads any more.
struct Answer {
    receiver: Receiver<Result<Event, Error>>,
    queue: Arc<Queue>,
    /// The end was handed out.
    ended: bool,
}

impl Stream for Answer {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match self.receiver.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(item)) => item,
            // The sender went away without an end: the thread failed, or was stopped.
            Poll::Ready(None) => Err(Error::Failed { status: None, message: "the engine gave up the answer".to_owned() }),
        };
        self.queue.wake();
        self.ended = !matches!(item, Ok(Event::Delta(_)));
        Poll::Ready(Some(item))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.receiver.close();
        self.queue.wake();
    }
}

impl Backend for Engine {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn describe(&self) -> String {
        self.device.clone()
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, Error>> {
        let infos = self
            .models
            .iter()
            .map(|served| &served.info)
            .chain(self.embedding.as_ref().map(|embedding| &embedding.info))
            .cloned()
            .collect();
        Box::pin(std::future::ready(Ok(infos)))
    }

    fn probe(&self, _probe: Probe) -> BoxFuture<'_, Health> {
        Box::pin(std::future::ready(self.health()))
    }

    fn health(&self) -> Health {
        match self.models.iter().find(|served| !served.is_alive()) {
            Some(served) => Health::Down(format!("the engine of {} has ended", served.info.name)),
            None => Health::Up,
        }
    }

    fn slots(&self) -> Option<u32> {
        self.models.first().and_then(|served| u32::try_from(served.queue.slots()).ok())
    }

    fn generate(&self, request: Arc<Request>) -> BoxFuture<'_, Result<Events, Error>> {
        Box::pin(async move { Arc::clone(self.find(&request)?).generate(request).await })
    }

    fn embed(&self, model: &ModelName, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, Error>> {
        let model = model.clone();
        Box::pin(async move {
            match &self.embedding {
                Some(embedding) if embedding.info.name == model => embedding.embed(texts).await,
                _ if self.models.iter().any(|served| served.info.name == model) => {
                    Err(Error::Unsupported { field: "model", why: format!("`{model}` gives no embeddings: it is a model that generates") })
                }
                _ => Err(Error::ModelNotFound { model: model.as_str().to_owned() }),
            }
        })
    }
}
