//! The life of the child process.

use std::fs::{File, TryLockError};
use std::io::{BufRead, Write};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::context::{Context, bounded};
use super::limits;
use super::words::{Ask, Brief, Say};
use crate::jobs::kind::{Fault, Registry};

/// How often it says that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long it waits for one that worked on the same job before and has not ended yet.
const PREDECESSOR: Duration = Duration::from_secs(20);
/// The exit code of a child that nobody wants any more.
const UNWANTED: i32 = 75;

/// What the worker has asked for.
#[derive(Debug, Default)]
pub struct Asked {
    pub stop: CancellationToken,
    pub wait: AtomicBool,
}

/// Standard output, a line at a time. When nobody listens any more, the process ends.
#[derive(Debug, Clone, Default)]
pub struct Voice(Arc<Mutex<()>>);

impl Voice {
    pub fn say(&self, say: &Say) {
        let mut line = serde_json::to_vec(say).unwrap_or_default();
        line.push(b'\n');
        // Lines of several threads must not mix. A poisoned lock guards nothing that could be broken.
        let _turn = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(UNWANTED);
        }
    }
}

/// Works on what standard input says, to its end.
///
/// # Errors
/// When there is nothing to work on.
pub fn run() -> Result<(), String> {
    let mut first = String::new();
    let mut input = std::io::BufReader::new(std::io::stdin());
    input.read_line(&mut first).map_err(|error| error.to_string())?;
    let brief: Brief = serde_json::from_str(&first).map_err(|error| {
        format!("`worker run` is started by a worker, which tells it what to do; to work on jobs say `arriero worker` ({error})")
    })?;
    limits::apply(brief.memory_bytes, brief.nice);
    let (voice, asked) = (Voice::default(), Arc::new(Asked::default()));
    attend(input, &voice, &asked, Duration::from_millis(brief.silence_ms));
    let last = work(brief, &voice, asked);
    voice.say(&last);
    Ok(())
}

/// Listens to the worker, and ends the process when there is nobody to listen to; says that it is alive.
fn attend(mut input: impl BufRead + Send + 'static, voice: &Voice, asked: &Arc<Asked>, silence: Duration) {
    let heard = Arc::new(Mutex::new(Instant::now()));
    let (ear, asked) = (Arc::clone(&heard), Arc::clone(asked));
    std::thread::spawn(move || {
        let mut line = String::new();
        while matches!(input.read_line(&mut line), Ok(1..)) {
            match serde_json::from_str(&line) {
                Ok(Ask::Stop) => asked.stop.cancel(),
                Ok(Ask::Wait) => asked.wait.store(true, Ordering::SeqCst),
                Ok(Ask::Go) => asked.wait.store(false, Ordering::SeqCst),
                Ok(Ask::Heard) | Err(_) => {}
            }
            *ear.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
            line.clear();
        }
        std::process::exit(UNWANTED);
    });
    let voice = voice.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(BEAT);
            let last = *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() > silence {
                std::process::exit(UNWANTED);
            }
            voice.say(&Say::Beat);
        }
    });
}

fn work(brief: Brief, voice: &Voice, asked: Arc<Asked>) -> Say {
    let kinds = Registry::standard(brief.trial);
    let Some(kind) = kinds.get(&brief.kind) else {
        return failed("kind", format!("this program has no kind of job called `{}`", brief.kind), false);
    };
    let _alone = match alone(&brief.work_dir) {
        Ok(lock) => lock,
        Err(why) => return failed("busy", why, true),
    };
    let input = brief.input.clone();
    let mut context = Context::new(brief, kind.version(), voice.clone(), asked);
    // A panic was written to standard error, which is kept as lines of the log.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| kind.run(&mut context, &input)));
    let ended = ended.unwrap_or_else(|_| Err(Fault::Passing("it panicked; the log says where".to_owned())));
    last(ended.and_then(bounded))
}

fn last(ended: Result<Value, Fault>) -> Say {
    match ended {
        Ok(result) => Say::Done { result },
        Err(Fault::Stopped) => Say::Stopped,
        Err(fault @ Fault::Passing(_)) => failed("failed", fault.to_string(), true),
        Err(fault @ (Fault::Input(_) | Fault::Path(_))) => failed("input", fault.to_string(), false),
        Err(fault @ Fault::Final(_)) => failed("failed", fault.to_string(), false),
    }
}

fn failed(kind: &str, message: String, again: bool) -> Say {
    Say::Failed { kind: kind.to_owned(), message, again }
}

/// Holds the job's folder: an earlier child whose worker was lost may still be writing in it.
fn alone(work_dir: &Path) -> Result<File, String> {
    std::fs::create_dir_all(work_dir).map_err(|error| format!("the folder of the job cannot be made: {error}"))?;
    let file = File::create(work_dir.join("lock")).map_err(|error| format!("the folder of the job cannot be used: {error}"))?;
    let until = Instant::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::WouldBlock) => return Err("an earlier attempt still works in the folder of the job".to_owned()),
            Err(TryLockError::Error(error)) => return Err(format!("the folder of the job cannot be locked: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_whether_trying_again_may_help() {
        let again = |fault| match last(Err(fault)) {
            Say::Failed { kind, again, .. } => Some((kind, again)),
            _ => None,
        };
        assert_eq!(again(Fault::Passing("x".into())), Some(("failed".into(), true)));
        assert_eq!(again(Fault::Final("x".into())), Some(("failed".into(), false)));
        assert_eq!(again(Fault::Input("x".into())), Some(("input".into(), false)));
        assert_eq!(again(Fault::Stopped), None);
    }

    #[test]
    fn two_cannot_work_in_one_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = alone(&folder.path().join("j")).expect("free");
        let second = File::create(folder.path().join("j/lock")).expect("made");
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        alone(&folder.path().join("j")).expect("free again");
    }
}
