//! Answers to questions that mean the same as one that was answered, where the configuration asks for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::answers::Place;
use super::call::Call;
use super::deadline::Bounds;
use super::generate::Gateway;
use super::production::Production;
use crate::cache::answer::Answer;
use crate::cache::semantic::{Route, Scope, Semantic, judge};
use crate::domain::generation::{Dialect, Event, Priority};
use crate::domain::id::ModelName;
use crate::domain::waiting::Progress;

/// Longest wait for a vector. Without one in time the model is asked as if there were no such cache.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is compared with another, in bytes; embedding models read no more of it anyway.
const MAX_COMPARED_BYTES: usize = 4_096;

/// Where a question stands among others.
pub struct Meaning {
    scope: Scope,
    vector: Vec<f32>,
}

/// An answer to a question that means the same.
pub struct Found {
    pub answer: Arc<Answer>,
    pub similarity: f32,
    pub age: Duration,
}

impl Gateway {
    fn semantic(&self) -> &Semantic<Answer> {
        &self.parts().semantic
    }

    /// The model that gives the vectors for a call; `None` where no such cache holds.
    pub(super) fn embedding(&self, call: &Call) -> Option<ModelName> {
        let route = match call.dialect {
            Dialect::Native => Route::Generate,
        };
        ModelName::parse(self.semantic().applies(route, call.first_model())?).ok()
    }

    /// The meaning of a call's question; `None` where no such cache holds, or it cannot be had.
    pub(super) async fn meaning(&self, call: &Call, place: &Place) -> Option<Meaning> {
        let embedding = self.embedding(call)?;
        let text = &call.ask.prompt.text;
        if !place.is_open() || !self.semantic().fits(text) {
            return None;
        }
        let vector = self.vector(&embedding, text).await?;
        let digest = place.digest().unwrap_or_else(|| call.first_model().canonical());
        Some(Meaning { scope: Scope::new(&call.principal.tenant, digest, &call.ask), vector })
    }

    /// An answer that may be given; when it is to be checked, that is begun.
    pub(super) fn same_meaning(&self, call: &Call, meaning: &Meaning) -> Option<Found> {
        let hit = self.semantic().lookup(&meaning.scope, &call.ask.prompt.text, &meaning.vector, Instant::now()).ok()?;
        if hit.check {
            let (gateway, call, answer) = (self.clone(), call.clone(), Arc::clone(&hit.value));
            self.parts().tasks.spawn(async move { gateway.check(call, answer, hit.similarity).await });
        }
        Some(Found { answer: hit.value, similarity: hit.similarity, age: hit.age })
    }

    /// Keeps an answer under the meaning of its question.
    pub(super) fn keep_meaning(&self, text: &str, meaning: &Meaning, answer: &Answer) {
        let (value, bytes) = (Arc::new(answer.clone()), answer.bytes());
        // Why it is not kept is counted there.
        let _ = self.semantic().store(&meaning.scope, text, &meaning.vector, value, bytes, Instant::now());
    }

    /// Asks the model after all, when nobody else needs it, and compares.
    async fn check(&self, mut call: Call, given: Arc<Answer>, similarity: f32) {
        call.class = Priority::Batch;
        let text = |answer: &Answer| answer.pieces().iter().map(|piece| said(&piece.event)).collect::<String>();
        let Some(real) = self.whole_text(&call).await else { return };
        let given = text(&given);
        let likeness = if given == real { 1.0 } else { self.likeness(&call, &given, &real).await.unwrap_or(0.0) };
        self.semantic().judged(similarity, judge(&given, &real, likeness));
    }

    async fn whole_text(&self, call: &Call) -> Option<String> {
        let (_, started) = self.produce(call, &Progress::new().0).await.ok()?;
        let mut events = Production::new(started, None, None, Bounds::default());
        let mut text = String::new();
        while let Some(event) = events.next().await {
            text.push_str(said(&event.ok()?));
        }
        Some(text)
    }

    /// The cosine of two answers.
    async fn likeness(&self, call: &Call, a: &str, b: &str) -> Option<f32> {
        let embedding = self.embedding(call)?;
        let cut = |text: &str| text[..text.floor_char_boundary(MAX_COMPARED_BYTES)].to_owned();
        let (a, b) = (self.vector(&embedding, &cut(a)).await?, self.vector(&embedding, &cut(b)).await?);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let length = (dot(&a, &a) * dot(&b, &b)).sqrt();
        (length > 0.0).then(|| dot(&a, &b) / length)
    }

    /// The vector of a text, by the first backend that is up and has the embedding model.
    async fn vector(&self, embedding: &ModelName, text: &str) -> Option<Vec<f32>> {
        let hosts = self.registry().having(embedding);
        let (entry, _) = hosts.iter().find(|(entry, _)| entry.is_up())?;
        let answer = tokio::time::timeout(PATIENCE, entry.backend.embed(embedding, vec![text.to_owned()])).await;
        match answer {
            Ok(Ok(vectors)) => vectors.into_iter().next(),
            Ok(Err(error)) => {
                tracing::warn!(%error, model = %embedding, "no vector for the semantic cache");
                None
            }
            Err(_) => {
                tracing::warn!(model = %embedding, "no vector for the semantic cache in time");
                None
            }
        }
    }
}

fn said(event: &Event) -> &str {
    match event {
        Event::Delta(delta) => &delta.text,
        Event::Done(_) => "",
    }
}
