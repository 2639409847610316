"""A drop-in ZeroTier node, root, relay and controller. Not affiliated with ZeroTier, Inc."""
