"""What runs: threads, devices, the sockets of the daemon, clocks and files."""
