"""Image encoders in JAX: ConvNeXt V2 in 2D and 3D, weights from anywhere, embeddings, fine-tuning.

The public names are listed in ``__init__.pyi``; each is imported on first use, so that scripts
which need only a part do not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
