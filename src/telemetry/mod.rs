//! Logs and metrics: how the process tells what it does. Never a prompt, a completion or a key.
