"""Networks, membership, credentials, multicast, bridging."""
