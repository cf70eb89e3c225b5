"""What runs on the device: numpy, OpenCV and one backend; never torch (except the reference backend)."""
