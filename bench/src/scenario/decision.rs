//! How long one decision of the queue takes (P6). The gateway's own `bench-queue` times it, inside its process: from outside,
//! microseconds drown in the cost of HTTP.

use super::Plan;
use crate::measure::figures::{Bound, Report};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

const WAITING: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) async fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("P6", "in process", 1);
    let Some(program) = &plan.arriero else { return Ok(report) };
    let mut command = tokio::process::Command::new(program);
    command.arg("bench-queue").kill_on_drop(true);
    let made = tokio::time::timeout(PATIENCE, command.output()).await.context("`arriero bench-queue` took too long")??;
    let told = String::from_utf8_lossy(&made.stdout);
    let measured: Vec<Value> = serde_json::Deserializer::from_str(&told).into_iter().map_while(Result::ok).collect();
    let Some(full) = with_waiting(&measured, WAITING) else {
        bail!("`arriero bench-queue` told nothing of {WAITING} waiters: {told}{}", String::from_utf8_lossy(&made.stderr));
    };
    report.figure("measured", json!(measured));
    let micros = |name: &str| full[name].as_f64().map(|ns| ns / 1e3);
    report.goal("P6", "admission with 10,000 waiters, p50, in microseconds", Bound::AtMost, 2.0, micros("admit_p50_ns"));
    report.goal("P6", "choice of the next with 10,000 waiters, p50, in microseconds", Bound::AtMost, 2.0, micros("next_p50_ns"));
    Ok(report)
}

/// The measurement with so many waiters, alone or in a list.
fn with_waiting(measured: &[Value], waiting: u64) -> Option<&Value> {
    let lists = measured.iter().filter_map(Value::as_array).flatten();
    measured.iter().chain(lists).find(|one| one["waiting"] == waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_queue_is_found_in_lines_and_lists() {
        let (small, full) = (json!({"waiting": 10, "admit_p50_ns": 1}), json!({"waiting": 10_000, "admit_p50_ns": 2}));
        assert_eq!(with_waiting(&[small.clone(), full.clone()], WAITING), Some(&full));
        assert_eq!(with_waiting(&[json!([small, full])], WAITING).map(|one| &one["admit_p50_ns"]), Some(&json!(2)));
        assert_eq!(with_waiting(&[], WAITING), None);
    }
}
