"""What work is cut into: tiles that the network sees, columns that planes flow through, blocks that are written."""
