"""Lower precisions: calibration, quantization, and what they may cost in accuracy."""
