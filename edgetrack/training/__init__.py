"""Training a tracker, from scratch or from a checkpoint: `edgetrack train`. Needs the extra `export`.

run         a request: data, output folder, wishes -> an outcome
settings    recipe and wishes resolved: everything that decides the numbers
shards, folders -> catalog   what there is to train on, checked
pairs       template, search crop and box; augment, geometry and paste are its parts
losses      the loss on score, size and offset maps
loop        phases, steps, saves; schedule, state, journal, heldaside, device and loading are its parts
"""
