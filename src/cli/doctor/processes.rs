//! Other programs on this machine, as far as Linux shows them to this user. Elsewhere nothing is found.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    pub pid: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// The program that listens on a TCP port.
pub fn listening_on(port: u16) -> Option<Process> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let socket = tables.iter().find_map(|table| listening_socket(table, port))?;
    let link = PathBuf::from(format!("socket:[{socket}]"));
    all().find(|(_, folder)| holds(folder, &link)).map(|(process, _)| process)
}

/// The variables of the first program of this name, as it was started with; `None` when there is none, or it is another user's.
pub fn variables_of(name: &str) -> Option<Vec<(String, String)>> {
    let (_, folder) = all().find(|(process, folder)| process.name == name && folder.join("environ").metadata().is_ok())?;
    let block = fs::read(folder.join("environ")).ok()?;
    Some(variables(&block))
}

fn variables(block: &[u8]) -> Vec<(String, String)> {
    let entries = block.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    entries.filter_map(|entry| entry.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn all() -> impl Iterator<Item = (Process, PathBuf)> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter_map(|folder| {
        let pid = folder.file_name()?.to_str()?.parse().ok()?;
        let name = fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
        Some((Process { name, pid }, folder))
    })
}

fn holds(process: &Path, link: &Path) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target == link)
}

/// The inode of the socket in state LISTEN on a port, from the kernel's table (proc(5)).
fn listening_socket(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTEN;
        if here { fields.get(9)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_the_listening_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
            1: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1\n";
        assert_eq!(listening_socket(table, 8000), Some(22));
        assert_eq!(listening_socket(table, 8001), None);
        assert_eq!(listening_socket("garbage\nmore garbage", 1), None);
    }

    #[test]
    fn an_environment_is_read_entry_by_entry() {
        let expected = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x=y".to_owned())];
        assert_eq!(variables(b"A=1\0B=x=y\0nonsense\0\xff=1\0"), expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(listening_on(port).map(|process| process.pid), Some(std::process::id()));
    }
}
