"""Training a tracker, from scratch or from a checkpoint: `edgetrack train`. Needs the extra `export`.

run           a request to an outcome
settings      the request, and what recipe and request come to: everything that decides the numbers
method        the face of a family's training; trackers/<family>.py: samples, what trains, the loss
start         the weights that a training begins with
catalog       what there is to train on, checked; sources reads it from shards and folders
pairs         samples and their batches; augment changes how they look
losses        what losses are made of, and that of centre heads
optimization  which tensors change, the optimizer, the rate, the average that is written
loop          phases, steps, saves
checkpoint    the state that a training resumes from, and its log
validation    tracks the held-out sequences
"""
