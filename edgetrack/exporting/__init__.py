"""From a checkpoint to a bundle: recipe, weights, graphs, conversion, parity. Needs the `export` extra."""
