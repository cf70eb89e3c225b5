"""Default weights of SMAT for edgetrack, which finds the file beside this module; for non-commercial research only."""
