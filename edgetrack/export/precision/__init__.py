"""Lower precisions: calibration sets, INT8 by NNCF, typed FP16, and the stages that may be kept higher."""
