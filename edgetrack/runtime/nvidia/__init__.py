"""What the TensorRT backend and exporter share: the installation, CUDA, building engines and keeping them."""
