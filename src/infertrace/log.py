"""The logger `infertrace`, without loading `logging` for a program that does not.

Most messages come from threads of ours. If one loaded `logging` there, and the program forked
meanwhile, the locks of `logging` would be released after the fork, but not taken before it.
"""

from __future__ import annotations

import contextlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any, Final

INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
"""As `logging` has them."""


class _Logger:
    """Stands for that logger."""

    def info(self, message: str, *args: object) -> None:
        self.log(INFO, message, *args)

    def warning(self, message: str, *args: object) -> None:
        self.log(WARNING, message, *args)

    def error(self, message: str, *args: object, exc_info: Any = None) -> None:
        self.log(ERROR, message, *args, exc_info=exc_info)

    def log(self, level: int, message: str, *args: object, exc_info: Any = None) -> None:
        if "logging" in sys.modules:
            import logging

            logging.getLogger("infertrace").log(level, message, *args, exc_info=exc_info)
        elif level >= WARNING:
            # As `logging.lastResort`, since nobody has configured another handler.
            with contextlib.suppress(Exception):
                print(message % args, file=sys.stderr)
                if exc_info:
                    import traceback

                    traceback.print_exc()


if TYPE_CHECKING:
    logger: logging.Logger
else:
    logger = _Logger()
