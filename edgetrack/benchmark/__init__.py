"""Measuring on the device: clock, samples and their statistics, memory, the machine and its roofline."""
