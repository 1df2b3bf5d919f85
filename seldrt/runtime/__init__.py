"""The only rooms with threads, devices, sockets and clocks."""
