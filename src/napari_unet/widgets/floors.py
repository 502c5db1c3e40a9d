"""The oldest viewer that the widgets run in: an environment may hold an older one, whatever the package declares."""

from .. import DISTRIBUTION
from ..device import too_old
from ..errors import UsageError


def check_viewer() -> None:
    """Refuse an environment whose viewer is too old, in one line.

    Raises
    ------
    UsageError
        Naming what is too old, and how to renew it.
    """
    for fault in too_old(DISTRIBUTION, "napari", "magicgui"):
        # What matters comes first: the viewer's notification shows the beginning.
        raise UsageError(f"{fault} for U-Net Stacks: pip install -U '{DISTRIBUTION}[all]'")
