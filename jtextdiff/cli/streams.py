"""Standard streams and arguments of a process, in any locale, even if the caller has closed them."""

import io
import os
import sys
from collections.abc import Sequence

from jtextdiff.cli.errors import UserError


def prepare_streams() -> None:
    """Makes standard output UTF-8, except on a terminal of another encoding, and replaces closed streams by nothing.

    What a terminal cannot show is printed as an escape. A closed stream would leave its number to the next file that
    is opened, and messages of C libraries would then be written into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def decoded(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a process. Raises UserError for one that is not in the encoding of the locale."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode("ascii", "backslashreplace")
            raise UserError(
                f"the argument {shown} is not text in {sys.getfilesystemencoding()}, the encoding of this locale. "
                "Rename the file or folder, or set LC_ALL=C.UTF-8 if it is in UTF-8."
            ) from None
    return list(arguments)
