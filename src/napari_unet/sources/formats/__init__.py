"""Files of other programs and instruments, read plane by plane or chunk by chunk through the library of each."""
