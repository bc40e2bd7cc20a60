use super::*;
use crate::domain::blame::Blame;
use crate::telemetry::Kind;
use std::collections::HashSet;

fn has(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
}

fn generation(model: &str, outcome: Outcome) -> Generation<'_> {
    Generation {
        backend: "local",
        model,
        operation: Operation::TextCompletion,
        outcome,
        duration: Duration::from_millis(1_100),
        first_token: Some(Duration::from_millis(100)),
        prompt_tokens: Some(7),
        completion_tokens: Some(11),
    }
}

#[test]
fn the_declarations_follow_the_rules_of_prometheus() {
    let mut names = HashSet::new();
    for spec in ALL {
        let name = spec.name;
        assert!(names.insert(name), "{name} is declared twice");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert_eq!(spec.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(spec.kind == Kind::Histogram, !spec.buckets.is_empty(), "{name}");
        assert!(spec.buckets.is_sorted_by(|a, b| a < b), "{name}");
        assert!(spec.help.ends_with('.') && !spec.help.contains(['\n', '\\']) && !spec.unit.is_empty(), "{name}");
        for unit in ["seconds", "bytes"] {
            assert!(spec.unit != unit || name.trim_end_matches("_total").ends_with(unit), "{name} is in {unit}");
        }
    }
}

#[test]
fn at_zero_every_metric_is_there_with_help_and_type() {
    let metrics = Metrics::default();
    for spec in ALL {
        has(&metrics, &format!("# HELP {} {}", spec.name, spec.help));
        has(&metrics, &format!("# TYPE {} {}", spec.name, spec.kind.as_str()));
    }
    has(&metrics, "arriero_requests_total{route=\"generate\",outcome=\"ok\"} 0");
    has(&metrics, "arriero_usage_rows_dropped_total{reason=\"queue_full\"} 0");
    has(&metrics, "arriero_connections 0");
    has(&metrics, concat!("arriero_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"));
}

#[test]
fn a_request_is_counted_once_whether_finished_or_dropped() {
    let metrics = Metrics::default();
    let (one, two, three) =
        (metrics.request_started(Route::Generate), metrics.request_started(Route::Generate), metrics.request_started(Route::Generate));
    has(&metrics, "arriero_requests_in_flight{route=\"generate\"} 3");
    one.finish(Outcome::Ok);
    two.finish(Outcome::Failed(Blame::Upstream));
    drop(three);
    has(&metrics, "arriero_requests_in_flight{route=\"generate\"} 0");
    for outcome in ["ok", "upstream_error", "cancelled"] {
        has(&metrics, &format!("arriero_requests_total{{route=\"generate\",outcome=\"{outcome}\"}} 1"));
    }
}

#[test]
fn a_generation_leaves_its_times_and_tokens() {
    let metrics = Metrics::default();
    metrics.first_token("local", "gemma3", Duration::from_millis(100));
    metrics.generation_finished(&generation("gemma3", Outcome::Ok));
    metrics.run_upkeep();
    let model = "gen_ai_request_model=\"gemma3\"";
    has(&metrics, &format!("gen_ai_server_time_to_first_token_seconds_sum{{backend=\"local\",{model}}} 0.1"));
    has(&metrics, &format!("gen_ai_server_time_per_output_token_seconds_sum{{backend=\"local\",{model}}} 0.1"));
    has(&metrics, &format!("gen_ai_client_token_usage_sum{{backend=\"local\",{model},gen_ai_token_type=\"output\"}} 11"));
    has(
        &metrics,
        &format!(
            "gen_ai_server_request_duration_seconds_count{{backend=\"local\",gen_ai_operation_name=\"text_completion\",{model},outcome=\"ok\"}} 1"
        ),
    );
}

#[test]
fn failures_and_single_tokens_have_no_time_per_token() {
    assert_eq!(generation("m", Outcome::Ok).time_per_token(), Some(Duration::from_millis(100)));
    assert_eq!(generation("m", Outcome::Cancelled).time_per_token(), None);
    for tokens in [None, Some(0), Some(1)] {
        assert_eq!(Generation { completion_tokens: tokens, ..generation("m", Outcome::Ok) }.time_per_token(), None);
    }
    assert_eq!(Generation { first_token: None, ..generation("m", Outcome::Ok) }.time_per_token(), None);
}

#[test]
fn models_beyond_the_bound_share_other() {
    let metrics = Metrics::new(&Config { max_model_labels: 1 });
    for model in ["a", "b", "c"] {
        metrics.first_token("local", model, Duration::ZERO);
    }
    has(&metrics, "gen_ai_server_time_to_first_token_seconds_count{backend=\"local\",gen_ai_request_model=\"a\"} 1");
    has(&metrics, "gen_ai_server_time_to_first_token_seconds_count{backend=\"local\",gen_ai_request_model=\"other\"} 2");
}

#[test]
fn the_rest_of_the_figures_arrive() {
    let metrics = Metrics::default();
    let open = metrics.connection_opened();
    has(&metrics, "arriero_connections 1");
    drop(open);
    has(&metrics, "arriero_connections 0");
    metrics.connection_refused();
    metrics.upstream_error("local", "stalled");
    metrics.backend_up("local", false);
    metrics.queued("local", Duration::from_millis(2));
    metrics.usage_rows_written(3);
    metrics.usage_rows_dropped(Dropped::QueueFull, 2);
    metrics.process(&Process {
        resident_bytes: 5,
        open_fds: Some(9),
        max_fds: None,
        cpu: Duration::from_millis(1_500),
        started_unix_s: 42,
    });
    for line in [
        "arriero_connections_refused_total 1",
        "arriero_upstream_errors_total{backend=\"local\",kind=\"stalled\"} 1",
        "arriero_backend_up{backend=\"local\"} 0",
        "arriero_queue_duration_seconds_count{backend=\"local\"} 1",
        "arriero_usage_rows_written_total 3",
        "arriero_usage_rows_dropped_total{reason=\"queue_full\"} 2",
        "process_resident_memory_bytes 5",
        "process_open_fds 9",
        "process_cpu_seconds_total 1.5",
        "process_start_time_seconds 42",
    ] {
        has(&metrics, line);
    }
}

#[test]
fn clones_share_and_separate_ones_do_not() {
    let (one, other) = (Metrics::default(), Metrics::default());
    one.clone().usage_rows_written(1);
    has(&one, "arriero_usage_rows_written_total 1");
    has(&other, "arriero_usage_rows_written_total 0");
}
