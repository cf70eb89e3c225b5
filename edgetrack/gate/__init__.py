"""The gate: a bundle compared with a budget and a baseline, with a statistical verdict."""
