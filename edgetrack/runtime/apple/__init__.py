"""What the Core ML backend and exporter share: the package coremltools, and what an .mlpackage says of itself."""
