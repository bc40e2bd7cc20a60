//! The fake's own promises: faults, phases, slots, loads. Times are never asserted, only order and counts.

use arriero_bench::{
    FakeOllama,
    fake::{Fault, Leak, Midway, On, Outcome, Phase, Plan, Script, Text, When},
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
async fn a_prompt_that_may_not_be_cut_is_refused_with_both_numbers() {
    let fake = spawn(numbered(1)).await;
    let body = json!({"model": "q8", "prompt": "word ".repeat(6_000), "stream": false, "truncate": false});
    let reply = post(fake.address(), "/api/generate", body).await;
    assert_eq!(reply.status, 400);
    let outer: Value = serde_json::from_slice(&reply.body()).expect("json");
    let inner: Value = serde_json::from_str(outer["error"].as_str().expect("a string")).expect("json in a string");
    assert_eq!((&inner["error"]["n_prompt_tokens"], &inner["error"]["n_ctx"]), (&json!(6_002), &json!(4_096)));
}

/// Work is paid for what the runner does not know; the count of tokens is that of the whole prompt all the same.
#[tokio::test]
async fn known_beginnings_of_prompts_cost_nothing() {
    let fake = spawn(Script { slots: 1, version: "0.34.1".into(), prefill_per_token: Duration::from_micros(50), ..numbered(2) }).await;
    let ask = async |prompt: String| -> Value {
        let reply = post(fake.address(), "/api/generate", json!({"model": "q8", "prompt": prompt, "stream": false})).await;
        serde_json::from_slice(&reply.body()).expect("json")
    };
    let salt = "salt ".repeat(400);
    let first = ask(salt.clone()).await;
    assert_eq!((&first["prompt_eval_count"], &first["prompt_eval_cached_count"]), (&json!(402), &json!(0)));
    let again = ask(format!("{salt}t0 t1 and more")).await;
    assert_eq!((&again["prompt_eval_count"], &again["prompt_eval_cached_count"]), (&json!(405), &json!(401)));
    ask("another".to_owned()).await;
    assert_eq!(ask(salt.clone()).await["prompt_eval_cached_count"], 401, "restored from memory");
    assert!(first["prompt_eval_duration"].as_u64() > again["prompt_eval_duration"].as_u64());
    fake.adjust(|script| script.version = "0.33.0".into());
    assert_eq!(ask(salt).await["prompt_eval_cached_count"], Value::Null);
    assert_eq!(fake.seen(|seen| (seen.prompt_tokens - seen.cached_tokens) / 100), 4);
}

/// The least it can take is what one runner makes; nothing is said about the most.
#[tokio::test]
async fn slots_share_the_speed_of_their_runner() {
    let fake = spawn(Script { tokens_per_second: 100.0, ..numbered(10) }).await;
    let began = std::time::Instant::now();
    tokio::join!(generate(&fake, false), generate(&fake, false), generate(&fake, false), generate(&fake, false));
    assert_eq!(fake.seen(|seen| seen.max_generating), 4);
    assert!(began.elapsed() > Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_leaked_slot_is_gone_until_the_model_is_unloaded() {
    let fake = spawn(Script { slots: 1, leak: Leak::Nth(0), token_gap: LONG, ..numbered(3) }).await;
    let leaving = generate(&fake, true);
    tokio::select! { _ = leaving => panic!("answered"), seen = fake.wait_for(|seen| seen.tokens == 1) => seen.expect("streams") }
    fake.wait_for(|seen| seen.leaked == 1).await.expect("lost");
    fake.adjust(|script| script.token_gap = Duration::ZERO);
    let stuck = generate(&fake, true);
    let queued = |seen: &arriero_bench::fake::Seen| seen.requests.iter().any(|r| r.outcome == Outcome::Running(Phase::Queued));
    tokio::select! { _ = stuck => panic!("there was a slot"), seen = fake.wait_for(queued) => seen.expect("waits") }
    fake.wait_for(|seen| seen.in_flight == 0).await.expect("left");
    post(fake.address(), "/api/generate", json!({"model": "q8", "keep_alive": 0})).await;
    assert_eq!(generate(&fake, true).await.status, 200);
    fake.leak_slot(Some("q8:latest"));
    assert_eq!(fake.seen(|seen| seen.leaked), 2);
}

#[tokio::test]
async fn a_hung_runner_is_seen_by_ps_alone_and_replaced_after_it() {
    let fake = spawn(Script { ping_timeout: Duration::from_millis(20), ..numbered(3) }).await;
    assert_eq!(generate(&fake, true).await.status, 200);
    fake.hang_runner(None);
    let stuck = generate(&fake, true);
    let working = |seen: &arriero_bench::fake::Seen| seen.generating == 1;
    tokio::select! { _ = stuck => panic!("answered"), seen = fake.wait_for(working) => seen.expect("waits") }
    let ask = raw::request("GET", "/api/ps", &[], b"");
    let ps = raw::exchange(fake.address(), &ask, BOUND).await.expect("connects");
    assert_eq!(ps.text(), "{\"models\":[]}");
    assert_eq!(generate(&fake, true).await.status, 200);
    assert_eq!(fake.seen(|seen| seen.loads), 2);
}

#[tokio::test]
async fn a_deadlocked_eviction_stops_loads_until_an_idle_model_is_unloaded() {
    let fake = spawn(Script { max_loaded: 1, ..numbered(3) }).await;
    assert_eq!(generate(&fake, true).await.status, 200);
    fake.deadlock();
    let other = || post(fake.address(), "/api/generate", json!({"model": "gemma3:270m", "prompt": "a"}));
    let waiting = async {
        fake.wait_for(|seen| seen.in_flight == 1).await.expect("waits");
        assert_eq!(generate(&fake, true).await.status, 200, "the loaded one still answers");
        post(fake.address(), "/api/generate", json!({"model": "q8", "keep_alive": 0})).await
    };
    let (answered, _) = tokio::join!(other(), waiting);
    assert_eq!(answered.status, 200);
    assert_eq!(fake.loaded(), ["gemma3:270m"]);
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
    for (number, change) in [json!({"num_batch": 64}), json!({"num_thread": 1}), json!({"num_ctx": 512})].into_iter().enumerate() {
        ask("chat", change).await;
        assert_eq!(fake.seen(|seen| seen.reloads), 3 + number as u64);
    }
    post(fake.address(), "/api/generate", json!({"model": "chat", "prompt": "a", "shift": false})).await;
    assert_eq!(fake.seen(|seen| (seen.reloads, seen.evictions)), (6, 0));
}

#[tokio::test]
async fn models_are_counted_each_for_itself() {
    let fake = spawn(Script { max_loaded: 1, ..numbered(1) }).await;
    for model in ["q8", "gemma3:270m", "q8"] {
        post(fake.address(), "/api/generate", json!({"model": model, "prompt": "a"})).await;
    }
    let of = |name: &str| fake.seen(|seen| seen.models.get(name).cloned().unwrap_or_default());
    let (q8, gemma) = (of("q8:latest"), of("gemma3:270m"));
    assert_eq!((q8.requests, q8.loads, q8.evictions, q8.max_generating), (2, 2, 1, 1));
    assert_eq!((gemma.requests, gemma.loads, gemma.evictions), (1, 1, 1));
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
