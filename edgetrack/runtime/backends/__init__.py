"""One folder per backend; each imports its package only when a graph is opened."""
