//! What can be asked for, on which backends.
