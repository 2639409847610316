"""A drop-in ZeroTier node, root, relay and network controller. Not affiliated with ZeroTier, Inc."""
