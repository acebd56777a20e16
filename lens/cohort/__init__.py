"""Patients as images: manifest, reading, one grid per patient, and a phantom cohort.

The public names are listed in ``__init__.pyi``; each is imported on first use, so that processes
which need only a part do not wait for the rest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
