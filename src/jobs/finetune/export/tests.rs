//! What is written against the same done otherwise, on the tiny models of every family.

mod folders;
mod made;
mod merging;
mod oracle;
mod peft;
mod storing;
