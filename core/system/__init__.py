"""What the operating system, the C library and torch provide: files, signals, threads, devices and global settings."""
