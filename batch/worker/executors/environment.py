"""The environment of a child: what a program needs to run, and what the setting CHILD_ENVIRONMENT names. Nothing else of the worker's.

A name that is on no list may be a token's: what a child has not got, a handler cannot print, and a library cannot send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

PASSED = (
    # the program, its place and its language
    *("PATH", "HOME", "USER", "LOGNAME", "PWD", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR"),
    # the interpreter and the libraries that it loads
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    # threads of numerical libraries, and the devices that they use
    *("OMP_*", "GOMP_*", "KMP_*", "OPENBLAS_*", "MKL_*", "BLIS_*", "VECLIB_*", "NUMEXPR_*", "CUDA_*", "NVIDIA_*"),
    # where it runs
    *("CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT", "CLOUD_RUN_TASK_ATTEMPT"),
    *("GOOGLE_CLOUD_PROJECT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"),
    # what our own handlers go by
    "DATA_MAX_BYTES",
)
"""Names, and beginnings of names, that every child gets."""


def environment_of_child(environment: Mapping[str, str], named: Iterable[str]) -> dict[str, str]:
    """What of the worker's environment a child gets. `named` are more names; a `*` stands for anything."""
    patterns = (*PASSED, *named)
    return {name: value for name, value in environment.items() if any(fnmatchcase(name, one) for one in patterns)}


def hint(text: str, environment: Mapping[str, str], named: Iterable[str]) -> str:
    """What to do where an error of a child is about a variable that the worker has and the child has not; else nothing."""
    passed = environment_of_child(environment, named)
    missed = [name for name in environment if name not in passed and f"'{name}'" in text]
    if not missed:
        return ""
    return f"; the worker has {' and '.join(missed)} in its environment, an isolated handler has not: name it in CHILD_ENVIRONMENT"
