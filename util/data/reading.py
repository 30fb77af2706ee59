"""How image files are read, as options or a checkpoint say it (docs/formats.md "Grey levels")."""

from dataclasses import dataclass
from typing import Any

Ends = tuple[float, float]  # the values that become black and white


@dataclass(frozen=True)
class Reading:
    """How image files are read: what the options say, or a checkpoint.

    Args:
        intensity_range: values that become black and white, in images of more than 8 bits; None: found in the data.
        window: centre and width, instead of the range and of a file's own window.
        frame: which one of a file that has several, from 0.
        slice: of a volume: axis (0 to 2: left to right, back to front, bottom to top) and index from 0, or "middle".
    """

    intensity_range: Ends | None = None
    window: Ends | None = None
    frame: int | None = None
    slice: tuple[int, int | str] | None = None

    @classmethod
    def of(cls, options: dict) -> "Reading":
        """From the options of a command line or of a checkpoint; older checkpoints have none of them."""
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            value = options.get(name)
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @property
    def said(self) -> dict:
        """The options that were given, ready for JSON; :meth:`of` reads them."""
        return {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}

    @property
    def recorded(self) -> dict:
        """The range for a checkpoint to keep, also where it was found and no option said it."""
        return {"intensity_range": list(self.intensity_range)} if self.intensity_range else {}

    @property
    def ends(self) -> Ends | None:
        """The values that become black and white where a file does not settle them; None: not known yet."""
        if self.window is None:
            return self.intensity_range
        centre, width = self.window
        return centre - width / 2, centre + width / 2


AS_IT_IS = Reading()  # nothing said
