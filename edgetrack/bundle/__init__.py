"""The artifact that an export makes and a device runs: a folder, or a zip of that folder, that proves what it is.

    out/smat-openvino-fp32/
      manifest.json      what it is, how it is run, and the size and sha256 of every file   (`manifest.py`)
      template.xml ...   the graphs
      golden.npz         inputs and outputs that re-prove parity anywhere
      parity.json        how far the export was from the model
      calibration.toml   the list of crops, where ranges were observed

`BundleWriter` makes one, whole or not at all; `open_bundle` checks one before anything of it is loaded; `pack` and
`unpack` turn it into a zip and back; `find_bundles` lists what is in a folder.
"""

from edgetrack.bundle.archive import pack, unpack
from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.reader import Bundle, ListedBundle, find_bundles, open_bundle, read_json, read_npz
from edgetrack.bundle.writer import BundleWriter, check_destination, write_npz

__all__ = [
    "Bundle",
    "BundleWriter",
    "ListedBundle",
    "Manifest",
    "check_destination",
    "find_bundles",
    "open_bundle",
    "pack",
    "read_json",
    "read_npz",
    "unpack",
    "write_npz",
]
