"""What every target owes, as tests that its author runs: `pytest --edgetrack-target NAME`.

`plugin` brings the options to pytest, `suite` the checks, `damage` opens bundles that may end the process.
"""
