"""The demonstration, the benchmarks and the laboratory that both run in."""
