"""How INT8 ranges are found and weights corrected: the choices that `export` offers, carried out by NNCF."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from edgetrack.arrays import Array
from edgetrack.errors import BackendMissingError, UsageError

Inputs = dict[str, Array]
"""What a graph is fed at one moment, by input name."""
Ranges = Literal["minmax", "percentile", "histogram"]
Correction = Literal["fast", "full", "none"]


@dataclass(frozen=True)
class Method:
    """How to quantize.

    Attributes:
        ranges: of activations. `minmax`: mean over crops of each crop's extremes; `percentile`: the same with 0.01 % of
            the values left out at either end; `histogram`: the range that loses least (NNCF's histogram aggregator).
        bias_correction: of the means that rounding weights shifts, layer by layer (`fast`), by running the graph up to
            each layer (`full`, minutes), or `none`.
        per_channel: weights have a scale for each output channel, not one for the tensor.
        smooth_quant: alpha in 0..1 by which matrix products move range from activations to weights (Xiao et al.,
            "SmoothQuant", ICML 2023); None leaves it off.
        symmetric: activations are symmetric where their sign allows.
    """

    ranges: Ranges = "minmax"
    bias_correction: Correction = "fast"
    per_channel: bool = True
    smooth_quant: float | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.ranges not in get_args(Ranges):
            raise UsageError(
                f"--calib-method {self.ranges!r} is not offered; expected one of: {', '.join(get_args(Ranges))} "
                "(entropy/KL is not among what NNCF does)"
            )
        if self.bias_correction not in get_args(Correction):
            raise UsageError(
                f"--bias-correction {self.bias_correction!r}: expected one of: {', '.join(get_args(Correction))}"
            )
        if self.smooth_quant is not None and not 0 <= self.smooth_quant <= 1:
            raise UsageError(f"--smooth-quant {self.smooth_quant}: expected a number in 0..1")

    def describe(self, quantizer: str) -> str:
        """As the manifest states it: `nncf minmax, fast bias correction, per channel, symmetric`."""
        parts = [
            f"{quantizer} {self.ranges}",
            f"{self.bias_correction} bias correction" if self.bias_correction != "none" else "no bias correction",
            "per channel" if self.per_channel else "per tensor",
            "symmetric" if self.symmetric else "asymmetric where it fits",
        ]
        if self.smooth_quant is not None:
            parts.append(f"SmoothQuant {self.smooth_quant:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Ignored:
    """Nodes that are not quantized: regular expressions for their whole names, and operator types."""

    patterns: tuple[str, ...] = ()
    types: tuple[str, ...] = field(default=())


def quantize(model: Any, inputs: Sequence[Inputs], method: Method, ignored: Ignored) -> Any:
    """Quantize an OpenVINO or ONNX model.

    Args:
        model: of either package.
        inputs: what it is fed, by input name.
        method, ignored: how, and what not.

    Raises:
        BackendMissingError: NNCF is not installed.
    """
    nncf = _import()
    if not inputs:
        raise UsageError("no calibration crop; a quantization needs one or more")
    # SmoothQuant is off with a negative alpha. NNCF's defaults for transformers would turn it on unasked.
    alpha = -1.0 if method.smooth_quant is None else method.smooth_quant
    params = nncf.quantization.advanced_parameters
    weights = None if method.per_channel else params.QuantizationParameters(per_channel=False)
    advanced = params.AdvancedQuantizationParameters(
        disable_bias_correction=method.bias_correction == "none",
        weights_quantization_params=weights,
        activations_range_estimator_params=_estimator(method.ranges),
        smooth_quant_alphas=params.AdvancedSmoothQuantParameters(convolution=-1, matmul=alpha),
    )
    presets = nncf.QuantizationPreset
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            preset=presets.PERFORMANCE if method.symmetric else presets.MIXED,
            subset_size=len(inputs),
            fast_bias_correction=method.bias_correction != "full",
            ignored_scope=nncf.IgnoredScope(patterns=list(ignored.patterns), types=list(ignored.types), validate=False),
            advanced_parameters=advanced,
        )


def _estimator(ranges: Ranges) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Sets

    return {"minmax": Sets.MEAN_MINMAX, "percentile": Sets.MEAN_QUANTILE, "histogram": Sets.HISTOGRAM}[ranges]


def _import() -> Any:
    # NNCF reports its use over the network unless this is set.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
        import nncf.quantization.advanced_parameters
    except ImportError as error:
        raise BackendMissingError(
            f"INT8 needs NNCF, which is not installed ({error}); install it with: pip install 'edgetrack[int8]'"
        ) from error
    import logging

    # Not `nncf.set_log_level`, which changes every handler on that logger, those of whoever listens too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws its bars on stdout, which carries our results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
