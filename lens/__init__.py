"""Radiomic Lens: what fine-tuning changed in an image encoder, in radiomic features.

The public names are listed in ``__init__.pyi``; each is imported on first use, so that scripts and
worker processes which need only a part do not wait for JAX.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("radiomic-lens")
