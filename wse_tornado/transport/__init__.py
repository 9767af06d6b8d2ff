"""Bytes in, messages out: the ways a WebSocket reaches the rest of the library."""
