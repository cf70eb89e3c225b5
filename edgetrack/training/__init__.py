"""Training a tracker, from scratch or from a checkpoint: `edgetrack train`. Needs the extra `export`.

run         a request (data, output folder, overrides) to an outcome
settings    recipe and overrides resolved: everything that decides the numbers
catalog     what there is to train on, checked; sources reads it from shards and folders
pairs       template, search crop and box, and their batches; augment changes how they look
losses      the loss on score, size and offset maps
loop        phases, steps, saves
checkpoint  the state that a training resumes from, and its log
validation  tracks the held-out sequences
"""
