"""The one place where PyRadiomics is imported, and the threads it may use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lens.errors import InputError


def pyradiomics() -> ModuleType:
    """The module ``radiomics``, imported on first use, with its log reduced to errors.

    Raises:
        InputError: PyRadiomics, PyWavelets or Numba is not installed; a table made elsewhere does
            without.
    """
    try:
        if find_spec("numba") is None:
            raise ImportError("No module named 'numba'")
        import pywt  # noqa: F401
        import radiomics
        import radiomics.featureextractor
        import radiomics.imageoperations
    except ImportError as error:
        raise InputError(
            f"features of images need PyRadiomics, which cannot be imported ({error}): "
            "pip install 'radiomic-lens[radiomics]' (needs a C compiler and the Python headers), "
            "or bring a table of features made elsewhere: --radiomics R.parquet"
        ) from error
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    return radiomics


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS, OpenMP and SimpleITK inside the block, the former numbers after it.

    GLCM's MCC solves an eigenproblem per direction, as large as there are gray levels: threads
    there cost 20 times more than they save, and workers already occupy every core.
    """
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with _thread_pools().limit(limits=1):
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@cache
def _thread_pools() -> Any:
    """What controls the threads of libraries, looked for once: that takes as long as a filter."""
    # Here, because only a library that is loaded by now is found: NumPy's BLAS solves for MCC.
    import numpy  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
