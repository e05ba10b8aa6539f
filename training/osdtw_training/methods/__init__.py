"""The peers, one a file, on the same engine: what OSDTW is compared with."""
