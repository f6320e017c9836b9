"""The environment variables of a kernel on this machine: an allow-list, so that no key of the user is among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_ALLOWED = frozenset(
    """PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP SYSTEMROOT COMSPEC PATHEXT WINDIR
    PYTHONPATH PYTHONHASHSEED PYTHONUTF8 PYTHONDONTWRITEBYTECODE VIRTUAL_ENV CONDA_PREFIX
    LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH
    CUDA_VISIBLE_DEVICES OMP_NUM_THREADS MKL_NUM_THREADS NUMEXPR_NUM_THREADS
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT NODE_EXTRA_CA_CERTS
    NO_PROXY""".split()
)
_ALLOWED_PREFIXES = ("LC_", "OPENBLAS_")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY"})
_SCHEME = re.compile(r"\A[a-z][a-z0-9+.-]*+://", re.IGNORECASE)


def scrub_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a kernel may see: proxies without passwords, certificates, locale, paths; no secrets."""
    allowed: dict[str, str] = {}
    for name, value in environ.items():
        upper = name.upper()
        if upper in _PROXIES:
            allowed[name] = _without_password(value)
        elif upper in _ALLOWED or upper.startswith(_ALLOWED_PREFIXES):
            allowed[name] = value
    return allowed


def private_directories(base: Path) -> dict[str, str]:
    """Jupyter's and IPython's directories below `base`, so that no configuration of the user is read."""
    return {
        "IPYTHONDIR": str(base / "ipython"),
        "JUPYTER_CONFIG_DIR": str(base / "jupyter"),
        "JUPYTER_DATA_DIR": str(base / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(base / "jupyter"),
    }


def _without_password(url: str) -> str:
    """The URL without anything before its last @, but for the scheme. Nothing is parsed: a password may break a URL."""
    name, at, host = url.rpartition("@")
    scheme = _SCHEME.match(name)
    return scheme[0] + host if at and scheme else host
