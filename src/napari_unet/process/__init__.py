"""Work in a process of its own: what is sent to it, the process, and how it is heard and sent requests."""
