//! Where processes may run, by way of `taskset` (util-linux).

use std::process::{Command, Stdio};

/// How the cores are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The proxy has the first core, upstream and load have the second.
    Pinned,
    /// Everything on both.
    Shared,
}

impl View {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Shared => "shared",
        }
    }
}

/// The first two cores this process may use; none when there is but one, or no `taskset`.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    proxy: usize,
    load: usize,
}

impl Cores {
    pub fn find() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let mut cores = list.trim().split(',').filter_map(range).flatten();
        let (proxy, load) = (cores.next()?, cores.next()?);
        let works = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        works.is_ok_and(|status| status.success()).then_some(Self { proxy, load })
    }

    fn list(self, view: View, proxy: bool) -> String {
        match (view, proxy) {
            (View::Pinned, true) => self.proxy.to_string(),
            (View::Pinned, false) => self.load.to_string(),
            (View::Shared, _) => format!("{},{}", self.proxy, self.load),
        }
    }

    /// Moves this process, all its threads, to where upstream and load belong.
    pub fn move_self(self, view: View) -> std::io::Result<()> {
        let list = self.list(view, false);
        let pid = std::process::id().to_string();
        let status = Command::new("taskset").args(["-a", "-p", "-c", &list, &pid]).stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other("taskset refused to move this process")) }
    }

    /// A command that will run where the proxy belongs.
    pub fn command(self, view: View, program: &std::path::Path) -> Command {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(self.list(view, true)).arg(program);
        command
    }
}

/// The share of all cores that was in use while this run did nothing: what else the machine is doing.
pub async fn busy(span: std::time::Duration) -> Option<f64> {
    let before = usage()?;
    tokio::time::sleep(span).await;
    let after = usage()?;
    let (used, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    #[expect(clippy::cast_precision_loss, reason = "ticks of a short while")]
    (all > 0).then(|| (used as f64 / all as f64 * 100.0).round() / 100.0)
}

/// Ticks in use and ticks in all, from the first line of `/proc/stat`: user nice system idle iowait irq softirq steal.
fn usage() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let (all, idle) = (ticks.iter().sum::<u64>(), ticks.get(3)? + ticks.get(4)?);
    Some((all - idle, all))
}

fn range(part: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    Some(first.parse().ok()?..=last.parse().ok()?)
}
