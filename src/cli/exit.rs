//! How a command ends: the exit codes, and the one line that says why.

use std::fmt;
use std::process::ExitCode;

/// The exit codes. They are part of the interface: scripts and service managers read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Anything without a code of its own; also what `doctor` and `config check` end with when something is wrong.
    Failure = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// The configuration does not hold.
    Configuration = 3,
    /// A model file is missing, damaged or of a kind that is not supported.
    ModelFile = 4,
    /// The address to listen on is taken or not ours.
    Address = 5,
    /// The data folder cannot be made, read or written.
    DataDir = 6,
    /// There is nothing to generate with: no Ollama answers and no model file is there.
    Upstream = 7,
    /// A model does not fit into memory.
    Memory = 8,
    /// Listening on a public address was refused.
    PublicAddress = 9,
    /// A client command could not reach the gateway.
    Gateway = 10,
    /// The gateway refused the request of a client command, or failed while answering.
    Refused = 11,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Code and meaning of all of them, for the help text.
    pub const TABLE: &str = "\
Exit codes:
    0  done
    1  failure; `doctor` and `config check`: something is wrong
    2  the command line is wrong
    3  the configuration does not hold
    4  a model file is missing, damaged or not supported
    5  the address to listen on is in use or not available
    6  the data folder cannot be written
    7  nothing to generate with: no Ollama answers and there is no model file
    8  a model does not fit into memory
    9  listening on a public address was refused
   10  the gateway cannot be reached (client commands)
   11  the gateway refused or failed (client commands)
  130  stopped by Ctrl-C";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for: one line with what failed, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// What failed, and why. Empty: there is nothing to say (the reader of our output has gone).
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { exit, what: what.into(), mend: mend.into() }
    }

    /// Ends without a word.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self { exit, what: String::new(), mend: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.what))?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", one_line(&self.mend)) }
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Output that cannot be written ends a command; a reader that has gone (`arriero models | head -1`) is no failure.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(Exit::Ok);
        }
        Self::new(Exit::Failure, format!("input or output failed: {error}"), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(Exit::Address, "cannot listen\n  on x", "choose another\n");
        assert_eq!(failure.to_string(), "cannot listen on x; choose another");
    }

    #[test]
    fn the_table_lists_every_code() {
        use Exit::{
            Address, Configuration, DataDir, Failure, Gateway, Interrupted, Memory, ModelFile, Ok, PublicAddress, Refused, Upstream, Usage,
        };
        for exit in
            [Ok, Failure, Usage, Configuration, ModelFile, Address, DataDir, Upstream, Memory, PublicAddress, Gateway, Refused, Interrupted]
        {
            let code = format!("{:>5}  ", exit as u8);
            assert!(Exit::TABLE.lines().any(|line| line.starts_with(&code)), "{exit:?}");
        }
    }
}
