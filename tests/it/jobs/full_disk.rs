//! R13: a real disk of a few megabytes that becomes full, with all of the gateway's data on it.

use std::fs::File;
use std::io::Write as _;

use arriero::gguf::layout::Layout;
use arriero::gguf::{Metadata, TensorKind, Value as Pair};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Weights of the model; two bytes each.
const WEIGHTS: u64 = 1 << 23;

/// A file system in memory, of a size of its own; gone when it is dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, with a printed word, where this process may not mount.
    fn mount(size_bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "arriero-test"]).arg(folder.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            println!("skipped: a small disk can only be mounted by root");
            return None;
        }
        Some(Self { folder })
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut ballast = File::create(self.folder.path().join("ballast")).expect("made");
        for size in [1 << 20, 1 << 10, 1] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.folder.path().join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is ending may still have a file open.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// A GGUF file of one matrix, in F16.
fn model() -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.push("general.architecture", Pair::String("llama".to_owned()));
    metadata.push("llama.block_count", Pair::U32(1));
    let tensor = ("blk.0.ffn_up.weight".to_owned(), vec![4_096, WEIGHTS / 4_096], TensorKind::F16);
    let layout = Layout::new(metadata, vec![tensor]).expect("a layout");
    let mut file = layout.header().to_vec();
    // Numbers of all sizes below one, by a simple generator.
    let mut state = 1_u32;
    for _ in 0..WEIGHTS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        file.extend((u16::try_from(state >> 16).expect("16 bits") & 0xb3ff).to_le_bytes());
    }
    file.resize(usize::try_from(layout.file_size_bytes()).expect("small"), 0);
    file
}

async fn yard(disk: &Disk) -> Yard {
    let data = tempfile::tempdir_in(disk.folder.path()).expect("a folder");
    // As nice as the rest: a test on a busy machine has no time to wait for those that are nicer.
    let more = [("ARRIERO_JOBS__MAX_ATTEMPTS", "50"), ("ARRIERO_JOBS__RESOURCES__NICE", "0")];
    let yard = Yard::on(data, &more).await;
    yard.put("model.gguf", model());
    yard
}

fn conversion(kind: &str) -> Value {
    json!({"kind": "convert", "input": {"source": "files/model.gguf", "types": [kind]}})
}

/// So many answers, each of which must be whole.
async fn answers(yard: &Yard, count: usize) {
    for number in 0..count {
        let body = json!({"model": "gemma3:270m", "prompt": format!("Question {number}"), "options": {"num_predict": 3}});
        let (status, answer) = yard.ask(Method::POST, "/generate", Some(body)).await;
        assert_eq!((status, &answer["done"]), (200, &json!(true)), "{answer}");
    }
}

/// Waits until a conversion writes, and holds it there. `None`: it was too quick.
async fn caught(yard: &Yard, id: &str) -> Option<Pid> {
    let files = yard.data.path().join("jobs/work").join(id).join("made/files");
    let writes = || {
        let unfinished =
            |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| entry.path().extension() == Some("part".as_ref()));
        std::fs::read_dir(&files).is_ok_and(|mut entries| entries.any(unfinished))
    };
    for look in 0_u64.. {
        if let (true, Some(child)) = (writes(), yard.children().first()) {
            let child = Pid::from_raw(i32::try_from(*child).expect("a process")).expect("a process");
            let _ = kill_process(child, Signal::STOP);
            if writes() {
                return Some(child);
            }
            let _ = kill_process(child, Signal::CONT);
            return None;
        }
        // It may be a matter of milliseconds, so the gateway is not asked each time.
        if look % 100 == 0 && !yard.job(id).await["finished_at_ms"].is_null() {
            return None;
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn what_cannot_fit_is_refused_with_the_numbers_and_what_was_accepted_waits_for_room() {
    let Some(disk) = Disk::mount(32 << 20) else { return };
    let yard = yard(&disk).await;
    let (status, problem) = yard.ask(Method::POST, "/jobs", Some(conversion("F32"))).await;
    assert_eq!((status, &problem["code"], &problem["resource"]), (507, &json!("job_too_large"), &json!("disk")), "{problem}");
    assert!(problem["needed"].as_u64() >= Some(4 * WEIGHTS) && problem["available"].as_u64() < Some(32 << 20), "{problem}");

    yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "pause"}))).await;
    let id = yard.submit(conversion("Q8_0")).await;
    disk.fill();
    yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "run"}))).await;
    let (status, problem) = yard.ask(Method::POST, "/jobs", Some(conversion("Q8_0"))).await;
    assert_eq!((status, problem["available"].as_u64() < Some(1 << 20)), (507, true), "{problem}");
    answers(&yard, 20).await;
    assert_eq!(yard.job(&id).await["state"], "queued");
    disk.make_room();
    // An order that could not be written was refused, and is given again.
    yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "run"}))).await;
    assert_eq!(yard.until(&id, "succeeded").await["attempts"], 1);
}

#[tokio::test]
async fn a_disk_that_becomes_full_under_a_job_costs_an_attempt_and_no_answer() {
    let Some(disk) = Disk::mount(160 << 20) else { return };
    let yard = yard(&disk).await;
    let calm = yard.submit(conversion("Q8_0")).await;
    let expected = yard.until(&calm, "succeeded").await["result"]["files"][0]["sha256"].clone();
    let mut held = None;
    for _ in 0..10 {
        let id = yard.submit(conversion("Q8_0")).await;
        held = caught(&yard, &id).await.map(|child| (id, child));
        if held.is_some() {
            break;
        }
    }
    let (id, child) = held.expect("one that is still writing");
    disk.fill();
    kill_process(child, Signal::CONT).expect("it is there");
    eventually("that the attempt ends", async || yard.children().is_empty()).await;
    answers(&yard, 50).await;
    let job = yard.job(&id).await;
    assert!(job["finished_at_ms"].is_null(), "it may still be done: {job}");
    disk.make_room();
    let job = yard.until(&id, "succeeded").await;
    assert!(job["attempts"].as_u64() > Some(1), "{job}");
    assert_eq!(job["result"]["files"][0]["sha256"], expected);
    let work = yard.data.path().join("jobs/work").join(&id);
    eventually("that its folder goes", async || !work.exists()).await;
    answers(&yard, 3).await;
}
