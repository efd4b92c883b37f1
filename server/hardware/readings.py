"""Takes readings one by one, so that one that fails costs no other, and keeps the reason."""

from collections.abc import Callable
from typing import Any, TypeVar

from server.hardware.devices import Absent

Value = TypeVar("Value")
# Imports a module by its name; foreign libraries are looked for only where there is a device for them.
Import = Callable[[str], Any]


class Readings:
    """The readings of one device.

    Attributes:
        absent: why a reading is None, by its name.

    Args:
        errors: what a driver raises where it cannot answer, beside Absent.
    """

    def __init__(self, *errors: type[Exception]) -> None:
        self.absent: dict[str, str] = {}
        self._errors: tuple[type[Exception], ...] = (Absent, *errors)

    def take(self, name: str, read: Callable[[], Value]) -> Value | None:
        """The reading, or None with its reason noted."""
        try:
            return read()
        except self._errors as error:
            self.absent[name] = str(error) or type(error).__name__
            return None

    def lacks(self, reason: str, *names: str) -> None:
        """Note readings that are not tried at all."""
        self.absent |= dict.fromkeys(names, reason)
