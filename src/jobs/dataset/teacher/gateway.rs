//! A teacher that a gateway serves, asked over HTTP: some questions at a time, at the lowest priority, and again where that may help.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};

use super::{Answer, Config, Question, Teacher};
use crate::domain::secret::Secret;
use crate::jobs::dataset::error::Error;
use crate::jobs::dataset::example::{Role, Turn};

/// Longest answer that is read, as it comes over the network.
const MAX_BYTES: usize = 16 << 20;
/// How often those who watch hear that it goes on.
const TICK: Duration = Duration::from_millis(200);
/// Of what a server says about a failure.
const SHOWN_CHARS: usize = 300;

pub struct Gateway {
    http: reqwest::Client,
    teacher: Teacher,
    config: Config,
    key: Option<Secret>,
    /// The address without what must not be shown.
    shown: String,
}

/// Why there is no answer.
enum Failure {
    /// It helps no question to be asked again.
    Final(String),
    /// It may help, not before so long.
    Passing(String, Option<Duration>),
}

impl Gateway {
    /// Does not connect.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(teacher: &Teacher, config: &Config) -> Result<Self, Error> {
        let wrong = |why: String| Error::teacher(&teacher.model, &why);
        let url = config.url.trim_end_matches('/');
        let parsed = reqwest::Url::parse(url).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let mut parsed = parsed.ok_or_else(|| wrong("the gateway's address is none: write it like http://127.0.0.1:8000".to_owned()))?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("arriero/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .timeout(config.answer_timeout)
            .redirect(reqwest::redirect::Policy::none());
        if parsed.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]") {
            // A proxy that the environment names cannot reach this machine's own addresses.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| wrong(format!("the HTTP client does not start: {error}")))?;
        let (_, _) = (parsed.set_username(""), parsed.set_password(None));
        let shown = parsed.as_str().trim_end_matches('/').to_owned();
        let key = Some(config.key.as_str()).filter(|key| !key.is_empty()).map(Secret::new);
        Ok(Self { http, teacher: teacher.clone(), config: Config { url: url.to_owned(), ..config.clone() }, key, shown })
    }

    fn is_openai(&self) -> bool {
        self.config.url.ends_with("/v1")
    }

    /// The gateway's own API takes a system's text and one question.
    pub fn takes(&self, turns: &[Turn]) -> bool {
        self.is_openai() || single(turns).is_some()
    }

    /// Asks all, in whatever order, and hands each answer on as it comes.
    ///
    /// # Errors
    /// A gateway that does not answer, or refuses all; those of `keep` and `told`.
    pub fn ask_all(
        &self,
        questions: &[&Question],
        keep: &mut dyn FnMut(&Question, Answer) -> Result<(), Error>,
        told: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if questions.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let ask = |question| async move { (question, self.ask(question).await) };
            let mut answers = stream::iter(questions.iter().copied()).map(ask).buffer_unordered(self.config.requests_at_once.max(1));
            let (mut tick, mut done) = (tokio::time::interval(TICK), 0);
            loop {
                tokio::select! {
                    answer = answers.next() => {
                        let Some((question, answer)) = answer else { return Ok(()) };
                        keep(question, answer?)?;
                        done += 1;
                        told(done)?;
                    }
                    _ = tick.tick() => told(done)?,
                }
            }
        })
    }

    /// Until there is an answer, or no hope of one.
    async fn ask(&self, question: &Question) -> Result<Answer, Error> {
        let mut failures = 0;
        loop {
            let pause = match self.ask_once(question).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(why)) => return Err(self.failed(&why, false)),
                Err(Failure::Passing(why, _)) if failures >= self.config.retries => return Err(self.failed(&why, true)),
                Err(Failure::Passing(_, after)) => after.unwrap_or_else(|| self.config.retry_pause.saturating_mul(1 << failures.min(10))),
            };
            failures += 1;
            tokio::time::sleep(pause.min(self.config.max_retry_pause)).await;
        }
    }

    fn failed(&self, why: &str, passing: bool) -> Error {
        Error::Teacher { model: self.teacher.model.clone(), why: format!("{} {why}", self.shown), passing }
    }

    async fn ask_once(&self, question: &Question) -> Result<Answer, Failure> {
        let (path, body) =
            if self.is_openai() { ("chat/completions", self.chat(question)) } else { ("generate", self.generation(question)) };
        let mut request = self.http.post(format!("{}/{path}", self.config.url)).json(&body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.reveal());
        }
        let unreached = |error: reqwest::Error| Failure::Passing(format!("does not answer: {}", root(&error)), None);
        let mut response = request.send().await.map_err(unreached)?;
        let (status, after) = (response.status(), retry_after(response.headers()));
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreached)? {
            if bytes.len() + piece.len() > MAX_BYTES {
                return Ok(Answer::Refused("its answer is too long".to_owned()));
            }
            bytes.extend_from_slice(&piece);
        }
        let said = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            let answer = if self.is_openai() { chatted(&said) } else { generated(&said) };
            return answer.ok_or_else(|| Failure::Final("answers in a way that is not understood".to_owned()));
        }
        refused(status, after, &said)
    }

    /// As `POST /generate` takes it. No other model may answer in the place of this one.
    fn generation(&self, question: &Question) -> Value {
        let (system, prompt) = single(&question.turns).unwrap_or_default();
        let Teacher { model, max_tokens, temperature, seed, .. } = &self.teacher;
        let mut body = json!({
            "model": model, "prompt": prompt, "stream": false, "priority": "batch", "fallback": false,
            "options": {"num_predict": max_tokens, "temperature": temperature, "seed": seed},
        });
        if let Some(system) = system {
            body["system"] = system.into();
        }
        body
    }

    fn chat(&self, question: &Question) -> Value {
        let Teacher { model, max_tokens, temperature, seed, .. } = &self.teacher;
        json!({
            "model": model, "messages": question.turns, "stream": false, "max_tokens": max_tokens, "temperature": temperature, "seed": seed,
        })
    }
}

/// The system's text, if any, and the one question.
fn single(turns: &[Turn]) -> Option<(Option<&str>, &str)> {
    match turns {
        [question] if question.role == Role::User => Some((None, &question.content)),
        [system, question] if (system.role, question.role) == (Role::System, Role::User) => {
            Some((Some(&system.content), &question.content))
        }
        _ => None,
    }
}

fn generated(said: &Value) -> Option<Answer> {
    Some(answered(said["response"].as_str()?, said["done_reason"].as_str().unwrap_or("stop")))
}

fn chatted(said: &Value) -> Option<Answer> {
    let choice = &said["choices"][0];
    Some(answered(choice["message"]["content"].as_str().unwrap_or_default(), choice["finish_reason"].as_str()?))
}

fn answered(text: &str, finish: &str) -> Answer {
    match finish {
        "length" => Answer::Cut,
        "stop" => Answer::Whole(text.to_owned()),
        other => Answer::Refused(format!("it ended with `{}`", other.chars().take(40).collect::<String>())),
    }
}

fn refused(status: StatusCode, after: Option<Duration>, said: &Value) -> Result<Answer, Failure> {
    let detail = [&said["detail"], &said["error"]["message"], &said["error"], &said["title"]].into_iter().find_map(Value::as_str);
    let detail: String = detail.unwrap_or_default().chars().take(SHOWN_CHARS).collect();
    let why = format!("says {}{}{detail}", status.as_u16(), if detail.is_empty() { "" } else { ": " });
    match status.as_u16() {
        400 | 413 | 422 => Ok(Answer::Refused(why)),
        401 | 403 => Err(Failure::Final(format!("{why} (a key for it: `jobs.teacher.key`, or $ARRIERO_KEY for commands)"))),
        408 | 425 | 429 | 500 | 502 | 503 | 504 => Err(Failure::Passing(why, after)),
        _ => Err(Failure::Final(why)),
    }
}

/// Seconds; dates are not read.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What is at the bottom of it, without the address.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(roles: &[(Role, &str)]) -> Vec<Turn> {
        roles.iter().map(|(role, text)| Turn::new(*role, *text)).collect()
    }

    fn gateway(url: &str) -> Gateway {
        let config = Config { url: url.to_owned(), key: "hunter2".to_owned(), ..Config::default() };
        Gateway::new(&Teacher { temperature: 0.5, seed: 3, ..Teacher::new("m") }, &config).expect("an address")
    }

    #[test]
    fn either_api_is_asked_in_its_own_words() {
        let turns = turns(&[(Role::System, "s"), (Role::User, "q")]);
        let question = Question { key: String::new(), turns };
        let (own, openai) = (gateway("http://h:1/"), gateway("https://h/v1/"));
        let body = own.generation(&question);
        assert_eq!(
            (&body["prompt"], &body["system"], &body["priority"], &body["fallback"]),
            (&json!("q"), &json!("s"), &json!("batch"), &json!(false))
        );
        assert_eq!(body["options"], json!({"num_predict": 512, "temperature": 0.5, "seed": 3}));
        let body = openai.chat(&question);
        assert_eq!(body["messages"], json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]));
        assert_eq!((&body["max_tokens"], &body["seed"], openai.is_openai(), own.is_openai()), (&json!(512), &json!(3), true, false));
        let several = self::turns(&[(Role::User, "q"), (Role::Assistant, "a"), (Role::User, "q")]);
        assert!(openai.takes(&several) && !own.takes(&several) && own.takes(&question.turns));
    }

    #[test]
    fn answers_are_whole_cut_or_refused() {
        assert_eq!(generated(&json!({"response": "x", "done_reason": "stop"})), Some(Answer::Whole("x".to_owned())));
        assert_eq!(generated(&json!({"response": "x", "done_reason": "length"})), Some(Answer::Cut));
        assert_eq!(generated(&json!({"error": "x"})), None);
        let choice = |finish: &str| json!({"choices": [{"message": {"content": "x"}, "finish_reason": finish}]});
        assert_eq!(chatted(&choice("stop")), Some(Answer::Whole("x".to_owned())));
        assert_eq!(chatted(&choice("length")), Some(Answer::Cut));
        assert!(matches!(chatted(&choice("content_filter")), Some(Answer::Refused(_))));
        assert_eq!(chatted(&json!({})), None);
    }

    #[test]
    fn what_may_pass_is_told_from_what_does_not() {
        let of = |status: u16, said: Value| refused(StatusCode::from_u16(status).expect("a status"), Some(Duration::from_secs(7)), &said);
        assert!(matches!(of(429, json!({"detail": "queue full"})), Err(Failure::Passing(why, Some(after)))
            if why.contains("queue full") && after.as_secs() == 7));
        assert!(matches!(of(503, Value::Null), Err(Failure::Passing(..))));
        assert!(matches!(of(404, json!({"detail": "no such model"})), Err(Failure::Final(why)) if why.contains("404: no such model")));
        assert!(matches!(of(401, Value::Null), Err(Failure::Final(why)) if why.contains("jobs.teacher.key")));
        assert!(matches!(of(400, json!({"error": {"message": "too long"}})), Ok(Answer::Refused(why)) if why.contains("too long")));
    }

    #[test]
    fn addresses_that_are_none_are_refused_and_credentials_are_not_shown() {
        for url in ["", "x", "ftp://h", "file:///etc/passwd"] {
            let config = Config { url: url.to_owned(), ..Config::default() };
            assert!(Gateway::new(&Teacher::new("m"), &config).is_err(), "{url}");
        }
        let gateway = gateway("http://me:hunter2@h:1");
        assert!(gateway.failed("x", true).to_string().contains("http://h:1 x"));
        assert!(!format!("{:?}", gateway.config).contains("hunter2"));
    }
}
