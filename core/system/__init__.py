"""Access to the operating system, the C library and torch: files, signals, threads, devices, global settings."""
