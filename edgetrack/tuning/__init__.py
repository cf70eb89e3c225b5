"""Which bundle, where and with how many threads is the fastest on this machine, at what cost in tracking."""
