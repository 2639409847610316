"""The TCP fallback relay (chapter 03, section 8): its records, the client and the relay server."""
