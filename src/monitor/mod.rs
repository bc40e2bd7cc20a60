//! Looks at the machine: processors, memory, disks, accelerators.
