"""The network controller: decisions, storage, HTTP API."""
