"""Hot path: everything here runs without the GIL and touches no Python object per packet."""
