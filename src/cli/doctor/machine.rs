//! The data folder, disk, memory, processors and accelerators.

use std::path::{Path, PathBuf};

use super::{Finding, Level, size};
use crate::config::Config;
use crate::monitor::sensors::{Accelerators, Disk, Memory};
use crate::monitor::{Sensors, Snapshot};

/// Below this much free disk, state may stop being written soon; below the other, it cannot be.
const DISK_LOW_BYTES: u64 = 1 << 30;
const DISK_FULL_BYTES: u64 = 64 << 20;

/// Below this much free memory no model of use fits.
const MEMORY_LOW_BYTES: u64 = 512 << 20;

pub async fn look(config: &Config) -> Vec<Finding> {
    let folder = config.data_dir.clone();
    let looked = tokio::task::spawn_blocking(move || (data_folder(&folder), Sensors::new().snapshot(&folder))).await;
    match looked {
        Ok((folder, snapshot)) => std::iter::once(folder).chain(hardware(&snapshot)).collect(),
        Err(error) => vec![Finding::fail("machine", format!("cannot be looked at: {error}"), "report this")],
    }
}

fn data_folder(folder: &Path) -> Finding {
    let there = folder.ancestors().find(|part| part.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let shown = folder.display();
    if !there.is_dir() {
        return Finding::fail("data folder", format!("{shown}: {} is no folder", there.display()), "choose another with --data-dir");
    }
    let probe = there.join(format!(".arriero-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"") {
        let mend = format!("make {} writable for this user, or choose another folder with --data-dir", there.display());
        return Finding::fail("data folder", format!("{shown} cannot be written: {error}"), mend);
    }
    // What cannot be removed is empty and hidden.
    let _ = std::fs::remove_file(&probe);
    let state = if there == folder { "can be written" } else { "will be made" };
    Finding::ok("data folder", format!("{shown} {state}"))
}

fn hardware(snapshot: &Snapshot) -> Vec<Finding> {
    let cpu = &snapshot.cpu;
    let model = if cpu.model.is_empty() { "unnamed" } else { &cpu.model };
    vec![
        disk(snapshot.disk.as_ref()),
        memory(snapshot.memory.as_ref()),
        Finding::ok("processor", format!("{model}, {} of {} threads usable", cpu.usable, cpu.threads)),
        accelerator(&snapshot.accelerators),
    ]
}

fn disk(disk: Option<&Disk>) -> Finding {
    let Some(disk) = disk else { return Finding::ok("disk", "its size cannot be read here") };
    let what = format!("{} free of {} on {}", size(disk.available_bytes), size(disk.total_bytes), disk.mounted_at.display());
    let mend = "free some, or choose a data folder on another disk with --data-dir";
    if disk.available_bytes < DISK_FULL_BYTES {
        Finding::fail("disk", what, mend)
    } else if disk.available_bytes < DISK_LOW_BYTES {
        Finding::warn("disk", what, mend)
    } else {
        Finding::ok("disk", what)
    }
}

fn memory(memory: Option<&Memory>) -> Finding {
    let Some(memory) = memory else { return Finding::ok("memory", "its size cannot be read here") };
    let limit = if memory.limited { " (the limit of the container)" } else { "" };
    let what = format!("{} free of {}{limit}", size(memory.available_bytes), size(memory.total_bytes));
    if memory.available_bytes < MEMORY_LOW_BYTES {
        Finding::warn("memory", what, "stop other programs, or serve smaller models")
    } else {
        Finding::ok("memory", what)
    }
}

/// Whether what there is can be used by this build.
fn accelerator(accelerators: &Accelerators) -> Finding {
    let Some(first) = accelerators.found.first() else {
        let why = accelerators.nvidia_absent.as_deref().unwrap_or("none was found");
        return Finding::ok("accelerator", format!("none ({why}); the embedded engine computes on the processor"));
    };
    let names: Vec<String> = accelerators
        .found
        .iter()
        .map(|found| match found.memory_total_bytes {
            Some(bytes) => format!("{} ({}, {})", found.name, found.api, size(bytes)),
            None => format!("{} ({})", found.name, found.api),
        })
        .collect();
    let usable = (first.api == "cuda" && cfg!(feature = "cuda")) || (first.api == "metal" && cfg!(feature = "metal"));
    let level = if usable || !cfg!(feature = "embedded") { Level::Ok } else { Level::Warn };
    let mend = format!("the embedded engine of this build does not use it: build with --features {}", first.api);
    Finding { check: "accelerator", level, what: names.join(", "), mend: (level == Level::Warn).then_some(mend) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_fine_and_one_inside_a_file_is_not() {
        let place = tempfile::tempdir().expect("a folder");
        assert_eq!(data_folder(&place.path().join("a/b")).level, Level::Ok);
        assert_eq!(data_folder(place.path()).level, Level::Ok);
        assert_eq!(std::fs::read_dir(place.path()).expect("readable").count(), 0, "nothing is left behind");
        let file = place.path().join("file");
        std::fs::write(&file, b"x").expect("writable");
        assert_eq!(data_folder(&file.join("a")).level, Level::Fail);
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        let with = |available_bytes| Disk { mounted_at: "/".into(), total_bytes: 1 << 40, available_bytes };
        assert_eq!(disk(Some(&with(1 << 35))).level, Level::Ok);
        assert_eq!(disk(Some(&with(1 << 29))).level, Level::Warn);
        assert_eq!(disk(Some(&with(1 << 20))).level, Level::Fail);
        assert_eq!(disk(None).level, Level::Ok);
    }

    #[test]
    fn having_no_accelerator_is_no_fault() {
        assert_eq!(accelerator(&Accelerators::default()).level, Level::Ok);
    }
}
