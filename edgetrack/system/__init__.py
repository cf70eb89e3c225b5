"""What the device does while something is measured: power, temperature, clocks, throttling, memory; read, never set."""
