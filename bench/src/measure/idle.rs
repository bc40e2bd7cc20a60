//! What a gateway costs when nobody asks: memory at rest, and the time from its start to its first answer.

use super::{
    Plan,
    cores::{Cores, View},
    figures::{Bound, Report, Spread},
    sides::{Setting, Upstream, gateway, script},
};
use anyhow::{Result, bail};
use serde_json::json;
use std::time::Duration;

/// Start-up work is over by then.
const SETTLED: Duration = Duration::from_millis(1_500);

pub async fn run(plan: &Plan) -> Result<Report> {
    let Some(program) = plan.arriero.as_deref() else { bail!("idle needs --arriero") };
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start(script())?;
    let setting =
        Setting { upstream: upstream.address, folder: folder.path(), arriero: Some(program), cores: Cores::find(), view: View::Shared };
    let (mut resident, mut anonymous, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let (process, _, took) = gateway(program, &setting).await?;
        start.push(took.as_secs_f64() * 1e3);
        tokio::time::sleep(SETTLED).await;
        let (all, anon) = process.resident();
        resident.push(mebibytes(all));
        anonymous.push(mebibytes(anon));
    }
    let mut report = Report::new("idle", View::Shared.name(), plan.rounds);
    let (resident, start) = (Spread::of(&resident), Spread::of(&start));
    report.figure("resident_mib", json!(resident.map(Spread::json)));
    report.figure("anonymous_mib", json!(Spread::of(&anonymous).map(Spread::json)));
    report.figure("start_to_first_200_ms", json!(start.map(Spread::json)));
    report.goal("P8", "idle resident memory in MiB", Bound::AtMost, 25.0, resident.map(|spread| spread.median));
    report.goal("P8", "start to first 200 in ms", Bound::AtMost, 150.0, start.map(|spread| spread.median));
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
