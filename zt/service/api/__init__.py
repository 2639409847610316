"""The local HTTP API: JSON over HTTP/1.1 on the primary port (ch. 06, section 3)."""
