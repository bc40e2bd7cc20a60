//! Room on the disk that holds a path.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sysinfo::{DiskRefreshKind, Disks};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub mounted_at: PathBuf,
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub available_bytes: u64,
}

pub(super) fn read(path: &Path) -> Option<Disk> {
    let path = nearest_that_exists(path)?;
    let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage()).ok()?;
    let mounts = disks.iter().map(|disk| Disk {
        mounted_at: disk.mount_point().to_owned(),
        total_bytes: disk.total_space(),
        available_bytes: disk.available_space(),
    });
    holding(&path, mounts)
}

/// Of several disks the one mounted nearest above the path.
fn holding(path: &Path, disks: impl Iterator<Item = Disk>) -> Option<Disk> {
    disks.filter(|disk| path.starts_with(&disk.mounted_at)).max_by_key(|disk| disk.mounted_at.components().count())
}

/// The path with links resolved, or what exists of it.
fn nearest_that_exists(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()?.ancestors().find_map(|part| part.canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(mounted_at: &str) -> Disk {
        Disk { mounted_at: mounted_at.into(), total_bytes: 1, available_bytes: 1 }
    }

    #[test]
    fn the_nearest_mount_above_holds_the_path() {
        let disks = || ["/", "/data", "/data/models", "/database"].map(disk).into_iter();
        for (path, mount) in
            [("/data/x", "/data"), ("/data", "/data"), ("/data/models/a/b", "/data/models"), ("/datab", "/"), ("/database/x", "/database")]
        {
            assert_eq!(holding(Path::new(path), disks()), Some(disk(mount)), "{path}");
        }
        assert_eq!(holding(Path::new("/x"), [disk("/y")].into_iter()), None);
    }

    #[test]
    fn a_path_that_does_not_exist_yet_stands_for_what_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("exists");
        assert_eq!(nearest_that_exists(&folder.path().join("not/yet")), Some(real));
    }
}
