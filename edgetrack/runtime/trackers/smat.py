"""SMAT's per-frame procedure (docs/trackers/smat.md): the template once, then a centre head."""

from __future__ import annotations

from typing import cast

import numpy as np

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.media.frames import Frame
from edgetrack.runtime.crop import Image
from edgetrack.runtime.trackers.base import check_graphs, shapes_of
from edgetrack.runtime.trackers.center import MAPS, CenterProcedure, CenterSettings


class SmatProcedure(CenterProcedure):
    """Graphs `template` (crop -> features, once) and `step` (crop, features -> score, size, offset)."""

    def check(self, manifest: Manifest, settings: CenterSettings) -> None:
        features = {"template_features": shapes_of(manifest.graph("template").outputs).get("template_features", ())}
        template = {"template": (settings.template_size, settings.template_size, 3)}
        search = {"search": (settings.search_size, settings.search_size, 3)}
        check_graphs(manifest, {"template": (template, features), "step": (search | features, MAPS)})

    def init(self, frame: Frame, box: Box) -> None:
        template = self.graphs["template"]
        self.state = box
        self.crop(frame, self.template_rule, cast(Image, template.inputs["template"]))
        template.run()
        np.copyto(self.step.inputs["template_features"], template.outputs["template_features"])


PROCEDURE = SmatProcedure
