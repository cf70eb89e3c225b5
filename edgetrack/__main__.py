"""`python -m edgetrack`."""

from edgetrack.cli.main import main

if __name__ == "__main__":
    main()
