//! What a verdict is made of: answers under way, the server's list of loaded models, and what is remembered of each model. Pure.

use std::time::Duration;

/// A list of loaded models that takes this long is a sign of a runner that does not answer: the server asks each for its health.
pub(super) const SLOW_LIST: Duration = Duration::from_secs(3);
/// A model that has been in the list for this long is loaded, even if nobody has had an answer of it.
const LOADED_AFTER: Duration = Duration::from_mins(1);
/// How late the list may be about a model that is in use all the time.
pub(super) const LIST_SLACK: Duration = Duration::from_secs(2);
/// How many times longer than usual a prompt may be read.
const PATIENCE: u32 = 4;
/// The slowest reading that is believed of a machine before anything is learnt: 50 tokens a second.
const UNLEARNT_PER_BYTE: Duration = Duration::from_millis(5);

/// However fast a machine seems to read, prompts get this long: it may only have seen what its caches held.
const LEAST_PER_BYTE: Duration = Duration::from_millis(1);

/// One answer under way. Times are spans since the backend was made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub id: u64,
    /// In its canonical spelling.
    pub model: String,
    /// Settings of the runner it asks for, as one text.
    pub shape: String,
    pub prompt_bytes: u64,
    pub started: Duration,
    /// When its last piece came. `None`: none has.
    pub spoke: Option<Duration>,
    /// It may be silent for long although all is well, as when a call of a tool is being written.
    pub discreet: bool,
}

/// A model in the server's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub model: String,
    /// Until when it stays, as far as the server says.
    pub stays_until: Option<Duration>,
}

/// The server's list of loaded models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List {
    /// Not asked for, or the server is not there at all, which others see to.
    Unknown,
    Known {
        took: Duration,
        models: Vec<Listed>,
    },
    /// It did not come in time.
    Late(Duration),
}

impl List {
    pub fn models(&self) -> &[Listed] {
        if let Self::Known { models, .. } = self { models } else { &[] }
    }

    pub fn took(&self) -> Option<Duration> {
        match self {
            Self::Unknown => None,
            Self::Known { took, .. } | Self::Late(took) => Some(*took),
        }
    }

    pub fn is_slow(&self) -> bool {
        self.took().is_some_and(|took| took >= SLOW_LIST)
    }

    /// Whether it is known to hold, or not to hold, a model.
    pub fn has(&self, model: &str) -> Option<bool> {
        matches!(self, Self::Known { .. }).then(|| self.models().iter().any(|listed| listed.model == model))
    }
}

/// What is remembered of a model.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// With which settings it last answered, as long as it has not left memory since.
    pub answered: Option<String>,
    pub listed_since: Option<Duration>,
    pub stays_until: Duration,
    pub last_piece: Option<Duration>,
    pub last_active: Option<Duration>,
    /// When more was last asked of it than it has slots.
    pub crowded: Option<Duration>,
    /// How long it takes to read a byte of a prompt.
    pub per_byte: Option<Duration>,
}

impl Known {
    /// How long prompts of so many bytes may take to be read.
    pub fn reading(&self, bytes: u64) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let each = self.per_byte.map_or(UNLEARNT_PER_BYTE, |each| each.saturating_mul(PATIENCE).max(LEAST_PER_BYTE));
        each.saturating_mul(bytes)
    }

    /// Whether an answer found the model in memory with the settings it wants, as far as anyone can tell.
    pub fn was_loaded_for(&self, answer: &Answer) -> bool {
        self.answered.as_ref() == Some(&answer.shape) && answer.started <= self.stays_until.saturating_add(LIST_SLACK)
    }

    /// Whether an answer finds the model loaded as it wants it: what comes late then is no loading.
    pub fn is_loaded_for(&self, answer: &Answer, now: Duration) -> bool {
        let for_long = self.answered.as_ref().is_none_or(|shape| *shape == answer.shape)
            && self.listed_since.is_some_and(|since| now.saturating_sub(since) > LOADED_AFTER);
        self.was_loaded_for(answer) || for_long
    }
}

/// The answers of one model.
pub(super) struct Group<'a> {
    pub waiting: Vec<&'a Answer>,
    pub speaking: Vec<&'a Answer>,
}

impl<'a> Group<'a> {
    pub fn of(model: &str, answers: &'a [Answer]) -> Self {
        let (speaking, waiting) = answers.iter().filter(|answer| answer.model == model).partition(|answer| answer.spoke.is_some());
        Self { waiting, speaking }
    }

    pub fn all(&self) -> impl Iterator<Item = &'a Answer> {
        self.waiting.iter().chain(&self.speaking).copied()
    }

    pub fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(|answer| answer.prompt_bytes).sum()
    }
}
