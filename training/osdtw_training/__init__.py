"""Train OSDTW networks: long-tailed data, the three stages, the proxy that plans them, and run folders."""
