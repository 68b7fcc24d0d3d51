"""The logger `infertrace`, without loading `logging` before there is something to say."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any, Final

INFO: Final = 20
WARNING: Final = 30
"""As `logging` has them."""


class _Logger:
    """Stands for that logger."""

    def __getattr__(self, name: str) -> Any:
        import logging

        return getattr(logging.getLogger("infertrace"), name)

    def info(self, *message: object) -> None:
        self.log(INFO, *message)

    def log(self, level: int, *message: object) -> None:
        # Where nothing has loaded it, nobody has asked for what is less than a warning.
        if level >= WARNING or "logging" in sys.modules:
            self.__getattr__("log")(level, *message)


if TYPE_CHECKING:
    logger: logging.Logger
else:
    logger = _Logger()
