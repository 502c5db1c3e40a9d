"""``python -m napari_unet.process``: what `Remote` starts."""

from .child import main

main()
