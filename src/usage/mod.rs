//! The request log: what was asked, what it cost, how it ended.
