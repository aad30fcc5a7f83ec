"""How messages and bodies travel: ZeroMQ between hospitals, memory within a process."""
