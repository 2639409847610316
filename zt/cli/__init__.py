"""zerotier-cli and zerotier-idtool."""
