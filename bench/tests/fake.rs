//! The fake's own promises: faults, phases, slots, loads. Times are never asserted, only order and counts.

use arriero_bench::{
    FakeOllama,
    fake::{Fault, Midway, On, Outcome, Phase, Plan, Script, Text, When},
    http1::raw::{self, Ended, Reply},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

const BOUND: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(10);

async fn post(address: SocketAddr, path: &str, body: Value) -> Reply {
    raw::exchange(address, &raw::request("POST", path, &[], body.to_string().as_bytes()), BOUND).await.expect("connects")
}

async fn generate(fake: &FakeOllama, stream: bool) -> Reply {
    post(fake.address(), "/api/generate", json!({"model": "q8", "prompt": "Go", "stream": stream})).await
}

async fn spawn(script: Script) -> FakeOllama {
    FakeOllama::spawn(script).await.expect("a free port")
}

fn numbered(count: usize) -> Script {
    Script { text: Text::Numbered(count), ..Script::default() }
}

fn lines(reply: &Reply) -> Vec<Option<Value>> {
    reply.text().lines().map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn tokens_come_whole_and_in_order() {
    let fake = spawn(numbered(5)).await;
    let reply = generate(&fake, true).await;
    let words: Vec<String> = lines(&reply).iter().flatten().map(|v| v["response"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(words, [" t0", " t1", " t2", " t3", " t4", ""]);
    let whole: Value = serde_json::from_slice(&generate(&fake, false).await.body()).expect("json");
    assert_eq!(whole["response"], " t0 t1 t2 t3 t4");
    assert_eq!((&whole["eval_count"], &whole["done_reason"]), (&json!(5), &json!("stop")));
}

/// What a client sees of each break after two of five tokens: streamed, then whole.
#[tokio::test]
async fn every_fault_in_the_middle_looks_as_it_should() {
    let fake = spawn(numbered(5)).await;
    for (midway, streamed, whole) in [
        (Midway::Close, (200, Ended::Cut), (200, Ended::Cut)),
        (Midway::Reset, (200, Ended::Reset), (200, Ended::Reset)),
        (Midway::ErrorLine, (200, Ended::Complete), (500, Ended::Complete)),
        (Midway::RunnerDeath, (200, Ended::Complete), (500, Ended::Complete)),
        (Midway::Garbage, (200, Ended::Complete), (200, Ended::Complete)),
        (Midway::HugeLine(8 << 20), (200, Ended::Complete), (200, Ended::Complete)),
        (Midway::TruncatedJson, (200, Ended::Complete), (200, Ended::Complete)),
        (Midway::EndWithoutDone, (200, Ended::Complete), (200, Ended::Complete)),
    ] {
        fake.fail(Plan::always(Fault::After(2, midway)));
        let (reply, at_once) = (generate(&fake, true).await, generate(&fake, false).await);
        // A reset may overtake what was sent before it.
        let overtaken = midway == Midway::Reset;
        assert!(overtaken || (reply.status, reply.ended) == streamed, "{midway:?}: {} {:?}", reply.status, reply.ended);
        assert!(overtaken || (at_once.status, at_once.ended) == whole, "{midway:?}: {} {:?}", at_once.status, at_once.ended);
        assert_ne!(reply.ended, Ended::TimedOut);
        let done = lines(&reply).iter().flatten().any(|line| line["done"] == true);
        assert_eq!(done, matches!(midway, Midway::HugeLine(_)), "{midway:?}");
        let text = reply.text();
        match midway {
            Midway::RunnerDeath => {
                assert!(text.ends_with("{\"error\":\"an error was encountered while running the model: unexpected EOF\"}\n"));
            }
            Midway::HugeLine(bytes) => assert!(text.lines().any(|line| line.len() > bytes)),
            Midway::Garbage | Midway::TruncatedJson => assert!(lines(&reply).iter().any(Option::is_none)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_stall_sends_nothing_more_and_keeps_the_connection() {
    let fake = spawn(numbered(5)).await;
    fake.fail(Plan::always(Fault::After(2, Midway::Stall)));
    for number in 0..2 {
        let body = json!({"model": "q8", "prompt": "Go", "stream": number == 0}).to_string();
        let request = raw::request("POST", "/api/generate", &[], body.as_bytes());
        let stalled = raw::exchange(fake.address(), &request, BOUND);
        tokio::select! {
            reply = stalled => panic!("{:?}", reply.map(|reply| reply.ended)),
            seen = fake.wait_for(|seen| seen.requests.get(number).is_some_and(|r| r.tokens == 2)) => seen.expect("two tokens"),
        }
        fake.wait_for(|seen| seen.in_flight == 0).await.expect("notices that the client left");
    }
    assert_eq!(fake.requests().iter().map(|r| (r.tokens, r.aborted())).collect::<Vec<_>>(), [(2, Some(Phase::Streaming)); 2]);
    let request = raw::request("POST", "/api/generate", &[], br#"{"model": "q8", "prompt": "Go"}"#);
    let reply = raw::exchange(fake.address(), &request, Duration::from_secs(1)).await.expect("connects");
    assert_eq!(reply.ended, Ended::TimedOut);
}

#[tokio::test]
async fn long_prompts_are_cut_silently_as_measured() {
    let fake = spawn(numbered(1)).await;
    let body = json!({"model": "q8", "prompt": "word ".repeat(6_000), "stream": false});
    let reply: Value = serde_json::from_slice(&post(fake.address(), "/api/generate", body).await.body()).expect("json");
    assert_eq!(reply["prompt_eval_count"], 2_051);
}

#[tokio::test]
async fn keep_alive_sticks_to_a_runner() {
    let fake = spawn(numbered(1)).await;
    post(fake.address(), "/api/generate", json!({"model": "q8", "prompt": "a", "keep_alive": -1})).await;
    generate(&fake, false).await;
    let ps = raw::exchange(fake.address(), &raw::request("GET", "/api/ps", &[], b""), BOUND).await.expect("connects");
    let ps: Value = serde_json::from_slice(&ps.body()).expect("json");
    assert!(ps["models"][0]["expires_at"].as_str().is_some_and(|at| at > "2200"), "{ps}");
}

#[tokio::test]
async fn faults_before_the_answer() {
    let fake = spawn(numbered(3)).await;
    for (fault, status, ended) in [
        (Fault::status(500), 500, Ended::Complete),
        (Fault::status(503).retry_after(7), 503, Ended::Complete),
        (Fault::CloseBeforeHeaders, 0, Ended::Cut),
        (Fault::ResetBeforeHeaders, 0, Ended::Reset),
        (Fault::SplitBytes, 200, Ended::Complete),
        (Fault::SlowHeaders(Duration::from_millis(1)), 200, Ended::Complete),
    ] {
        fake.fail(Plan::next(1, fault.clone()));
        let reply = generate(&fake, true).await;
        assert_eq!((reply.status, reply.ended), (status, ended), "{fault:?}");
        assert_eq!(reply.header("retry-after"), (status == 503).then_some("7"));
        assert_eq!(generate(&fake, true).await.status, 200, "only the next one after {fault:?}");
    }
    fake.fail(Plan::none().rule(On::Path("/api/tags".into()), When::Always, Fault::status(500)));
    assert_eq!(generate(&fake, false).await.status, 200);
}

/// A client that leaves is recorded with the phase it left in.
#[tokio::test]
async fn those_who_leave_are_remembered_with_their_phase() {
    let fake = spawn(Script { slots: 1, ..numbered(3) }).await;
    let leave_in = async |phase: Phase, others: usize| {
        let before = fake.seen(|seen| seen.aborted_in(phase));
        let leaving = generate(&fake, true);
        tokio::select! {
            _ = leaving => panic!("answered instead of {phase:?}"),
            seen = fake.wait_for(|seen| seen.requests.iter().filter(|r| r.outcome == Outcome::Running(phase)).count() > others) => seen.expect("phase"),
        }
        fake.wait_for(|seen| seen.aborted_in(phase) == before + 1).await.expect("noticed");
    };
    fake.fail(Plan::next(1, Fault::Hang));
    leave_in(Phase::Received, 0).await;
    fake.adjust(|script| script.prefill = LONG);
    leave_in(Phase::Prefill, 0).await;
    let holding = generate(&fake, true);
    let second = async {
        fake.wait_for(|seen| seen.generating == 1).await.expect("holds the slot");
        leave_in(Phase::Queued, 0).await;
    };
    tokio::select! { _ = holding => panic!("answered"), () = second => {} }
    fake.adjust(|script| (script.prefill, script.token_gap) = (Duration::ZERO, LONG));
    leave_in(Phase::Streaming, 0).await;
    fake.wait_for(|seen| seen.in_flight == 0 && seen.generating == 0).await.expect("nothing is left");
    assert_eq!(fake.seen(|seen| seen.max_generating), 1);
}

#[tokio::test]
async fn no_more_than_the_slots_work_at_once() {
    let fake = spawn(Script { slots: 2, prefill: LONG, ..numbered(5) }).await;
    let address = fake.address();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..8 {
        set.spawn(post(address, "/api/generate", json!({"model": "q8", "prompt": "Go"})));
    }
    let running = |seen: &arriero_bench::fake::Seen, phase| seen.requests.iter().filter(|r| r.outcome == Outcome::Running(phase)).count();
    fake.wait_for(|seen| running(seen, Phase::Queued) == 6 && running(seen, Phase::Prefill) == 2).await.expect("two of eight work");
    assert_eq!(fake.seen(|seen| (seen.max_generating, seen.in_flight, seen.loads)), (2, 8, 1));
    set.shutdown().await;
    fake.wait_for(|seen| seen.in_flight == 0 && seen.aborted == 8).await.expect("all left");
}

#[tokio::test]
async fn runner_options_cost_a_reload_and_sampling_options_do_not() {
    let fake = spawn(numbered(1)).await;
    let ask = async |model: &str, options: Value| {
        post(fake.address(), "/api/generate", json!({"model": model, "prompt": "a", "options": options})).await
    };
    for (model, options, loads) in [
        ("gemma3:270m", json!({}), 1),
        ("gemma3:270m", json!({"temperature": 1, "num_ctx": 4096}), 1),
        ("chat", json!({}), 1),
        ("chat", json!({"num_ctx": 2048}), 2),
        ("chat", json!({}), 3),
        ("q8", json!({}), 4),
    ] {
        assert_eq!(ask(model, options).await.status, 200);
        assert_eq!(fake.seen(|seen| seen.loads), loads, "{model}");
    }
    assert_eq!(fake.loaded().len(), 2, "tags of the same weights share a runner");
    post(fake.address(), "/api/generate", json!({"model": "q8", "keep_alive": 0})).await;
    assert_eq!(fake.loaded(), ["chat:latest"]);
}

#[tokio::test]
async fn the_queue_of_loads_is_bounded_and_that_of_a_loaded_model_is_not() {
    let fake = spawn(Script { max_queue: 1, max_loaded: 1, slots: 1, prefill: Duration::from_millis(20), ..numbered(1) }).await;
    let address = fake.address();
    let ask = |model: &'static str| post(address, "/api/generate", json!({"model": model, "prompt": "a", "stream": false}));
    assert_eq!(ask("q8").await.status, 200);
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..10 {
        set.spawn(ask("q8"));
    }
    assert!(set.join_all().await.iter().all(|reply| reply.status == 200));
    fake.adjust(|script| script.load_time = LONG);
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..10 {
        set.spawn(ask("gemma3:270m"));
    }
    fake.wait_for(|seen| seen.answered == 11 + 8).await.expect("one loads, one waits, eight are refused");
    for _ in 0..8 {
        let reply = set.join_next().await.expect("there are ten").expect("no panic");
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("server busy, please try again.  maximum pending requests exceeded"));
    }
    assert_eq!(fake.seen(|seen| seen.in_flight), 2);
}

#[tokio::test]
async fn a_runner_that_dies_takes_all_its_requests_with_it() {
    let fake = spawn(Script { token_gap: LONG, ..numbered(3) }).await;
    let address = fake.address();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..3 {
        set.spawn(post(address, "/api/chat", json!({"model": "chat", "messages": [{"role": "user", "content": "a"}]})));
    }
    fake.wait_for(|seen| seen.tokens == 3).await.expect("all stream");
    fake.kill_runners();
    for reply in set.join_all().await {
        assert!(reply.text().trim_end().ends_with("unexpected EOF\"}"), "{}", reply.text());
    }
    fake.adjust(|script| script.token_gap = Duration::ZERO);
    assert_eq!(generate(&fake, true).await.status, 200);
}

#[tokio::test]
async fn a_killed_fake_resets_and_its_port_can_be_used_again() {
    let fake = spawn(Script { token_gap: LONG, ..numbered(3) }).await;
    let address = fake.address();
    let asked = arriero_bench::task::spawn(post(address, "/api/generate", json!({"model": "q8", "prompt": "a"})));
    fake.wait_for(|seen| seen.tokens == 1).await.expect("streams");
    fake.kill().await;
    assert_eq!(asked.await.expect("no panic").ended, Ended::Reset);
    let again = FakeOllama::spawn_at(address, numbered(1)).await.expect("the port is free");
    assert_eq!(generate(&again, true).await.status, 200);
    again.stop().await;
}
