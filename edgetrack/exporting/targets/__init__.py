"""One file per target: how its graphs are converted and lowered."""
