"""Jetson's sensors through jetson-stats 4 or later (`pip install jetson-stats`; its service `jtop` must run).

`jtop.power` holds rails in milliwatts (`rail`, and `tot` for all of the module), `jtop.temperature` zones in degrees,
`jtop.gpu` and `jtop.cpu` clocks in kHz, `jtop.memory` KiB. Versions and boards differ: what is absent is passed over.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from edgetrack.telemetry.reading import Quantity, Reading
from edgetrack.telemetry.tegrastats import PLACEHOLDERS

_NO_SENSOR_C = -200.0


class Jtop:
    """A connection to jetson-stats' service.

    Args:
        connection: an opened `jtop.jtop()`; by default one is made.

    Raises:
        OSError: jetson-stats is not installed, or its service does not answer.
    """

    name = "jtop"

    def __init__(self, connection: Any = None) -> None:
        self._connection = connection if connection is not None else _connect()

    def read(self) -> Iterator[Reading]:
        jetson = self._connection
        try:
            fields = [
                _mapping(getattr(jetson, name, None)) for name in ("power", "temperature", "gpu", "cpu", "memory")
            ]
        except Exception as error:  # jetson-stats raises its own class when its service goes
            raise OSError(f"jetson-stats cannot be read: {error}") from error
        power, temperature, gpu, cpu, memory = fields
        yield from _power(power)
        yield from _heat(temperature)
        yield from _clocks(gpu, cpu)
        used = _number(_mapping(memory.get("RAM")).get("used"))
        if used is not None:
            yield Reading("memory_mb", "RAM", used / 1024)

    def power_mode(self) -> str | None:
        """The name of the active nvpmodel."""
        stated = _mapping(getattr(self._connection, "stats", None)).get("nvp model")
        return str(stated) if stated else None

    def jetson_clocks(self) -> bool | None:
        """Whether jetson_clocks holds the clocks at their maximum; None where it does not say."""
        stated = str(_mapping(getattr(self._connection, "stats", None)).get("jetson_clocks", "")).upper()
        return {"ON": True, "OFF": False}.get(stated)

    def close(self) -> None:
        """Leave the service."""
        self._connection.close()


def _connect() -> Any:
    try:
        connection = importlib.import_module("jtop").jtop(interval=0.5)
        connection.start()
    except Exception as error:  # not installed, no right to the socket, service of another version
        raise OSError(f"jetson-stats does not answer: {error}") from error
    return connection


def _power(power: Mapping[str, Any]) -> Iterator[Reading]:
    for name, rail in _mapping(power.get("rail")).items():
        yield from _reading("power_w", str(name), _mapping(rail).get("power"), 1000)
    yield from _reading("power_w", "TOT", _mapping(power.get("tot")).get("power"), 1000)


def _heat(zones: Mapping[str, Any]) -> Iterator[Reading]:
    for name, zone in zones.items():
        celsius = _number(_mapping(zone).get("temp"))
        if celsius is not None and celsius > _NO_SENSOR_C and name not in PLACEHOLDERS:
            yield Reading("temperature_c", str(name), celsius)


def _clocks(gpus: Mapping[str, Any], cpu: Mapping[str, Any]) -> Iterator[Reading]:
    for name, gpu in gpus.items():
        yield from _reading("clock_mhz", str(name), _mapping(_mapping(gpu).get("freq")).get("cur"), 1000)
        yield from _reading("load_percent", str(name), _mapping(_mapping(gpu).get("status")).get("load"), 1)
    cores = cpu.get("cpu")
    listed = [_mapping(core) for core in cores] if isinstance(cores, (list, tuple)) else []
    clocks = [_number(_mapping(core.get("freq")).get("cur")) for core in listed if core.get("online")]
    known = [khz for khz in clocks if khz is not None]
    if known:
        yield Reading("clock_mhz", "CPU", max(known) / 1000)


def _reading(quantity: Quantity, name: str, value: Any, scale: float) -> Iterator[Reading]:
    number = _number(value)
    if number is not None:
        yield Reading(quantity, name, number / scale)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
