"""Conda's package lists in the words of the Python index, for those who have no conda.

pytorch=1.13            ->  torch==1.13.*
conda-forge::numpy>=1.2 ->  numpy>=1.2
cudatoolkit=11.3        ->  nothing: the wheels bring it
ffmpeg                  ->  untranslated: no Python package
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Names that differ. A name that is not here and not below is taken to be the same in both worlds, as nearly all are.
_RENAMED = {
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "tensorflow-gpu": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "tensorflow-eigen": "tensorflow",
    "tensorflow-base": "tensorflow",
    "keras-gpu": "keras",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
    "scikit-learn-base": "scikit-learn",
    "geopandas-base": "geopandas",
    "dask-core": "dask",
    "ray-core": "ray",
    "ray-default": "ray[default]",
    "ray-tune": "ray[tune]",
    # The headless build: the other one needs a display's libraries, which a training machine seldom has.
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "libopencv": "opencv-python-headless",
    "python-graphviz": "graphviz",
    "pytables": "tables",
    "msgpack-python": "msgpack",
    "ruamel-yaml": "ruamel.yaml",
    "docker-py": "docker",
    "psycopg2": "psycopg2-binary",
    "pyqt": "PyQt5",
    "pyg": "torch-geometric",
    "pytorch-geometric": "torch-geometric",
    "python-flatbuffers": "flatbuffers",
    "faiss": "faiss-cpu",
    "pycryptodomex": "pycryptodomex",
    "brotlipy": "brotlipy",
}
# Their PyPI versions carry one more number than conda's, so that `==4.8.1` would find nothing.
_LONGER_VERSIONS = frozenset({"opencv-python-headless"})

BUILD = frozenset({"pip", "setuptools", "wheel"})

# Parts of Python itself, of the wheels, or of the graphics driver's side: nothing to install for a wheel.
_BROUGHT_ALONG = re.compile(
    r"cuda(?:toolkit|-.*|nn)?|cudnn|cpuonly|pytorch-(?:cuda|mutex)|nccl|magma(?:-.*)?|nvidia(?:-.*)?|libcu.*|libnv.*|libnpp.*"
    r"|mkl(?:[-_].*)?|intel-openmp|llvm-openmp|(?:lib)?openblas|blas|nomkl|lib(?:blas|cblas|lapacke?|gfortran.*|gomp)|tbb"
    r"|_.*|lib(?:gcc|stdcxx)(?:-ng|-devel.*)?|ld-impl.*|libgcc.*|openssl|ca-certificates|sqlite|readline|zlib(?:-ng)?|xz|tk|ncurses|bzip2"
    r"|libffi|libuuid|libsqlite|libzlib|libexpat|liblzma.*|libnsl|libxcrypt|python-abi|python_abi|numpy-base|vc|vs20.*|ucrt|expat|zstd|lz4-c"
    r"|libedit|libcxx|libiconv|yaml|libyaml|freetype|libpng|jpeg|libjpeg.*|libtiff|lcms2|libwebp.*|openjpeg|lerc|giflib|libdeflate|tzdata"
    r"|xorg-.*|alsa-lib|dbus|fontconfig|fonts?-.*|icu|nspr|nss|krb5|pcre2?|gettext|gst.*|c-ares|gflags|glog|re2|aws-c.*|aws-sdk.*|s2n|orc"
    r"|keyutils|mysql-(?:common|libs)|harfbuzz|graphite2|fribidi|lame|nettle|gnutls|lz4|zeromq|pthread-stubs|expat|nspr|utf8proc"
)
# Programs and libraries that are no Python package, or whose Python package needs a compiler and headers.
_NATIVE = re.compile(
    r"r(?:-.*)?|lib.*|gcc.*|gxx.*|gfortran.*|clang.*|binutils.*|sysroot.*|compilers|c-compiler|cxx-compiler|openjdk|java.*|nodejs"
    r"|ffmpeg|graphviz|git(?:-lfs)?|make|curl|wget|gdal|geos|proj|hdf5|netcdf4-c|openmpi|mpich|swig|boost(?:-cpp)?|eigen|pandoc|texlive.*"
    r"|imagemagick|tesseract|poppler|snappy|arrow-cpp|grpc-cpp|glib|qt(?:-main)?|perl|ruby|rust|go|unixodbc|postgresql|mysql|redis|vim|tmux"
    r"|cudf|cuml|cugraph|rapids|nb-conda.*|conda(?:-.*)?|mamba|spark|x264|gmp|fftw|gsl|cairo|pango|pixman"
)
_SPEC = re.compile(r"(?:[\w./-]+(?:\[[^\]]*\])?::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?P<rest>.*)")
_CLAUSE = re.compile(r"(?P<sign>===?|~=|!=|<=|>=|<|>|=)?\s*(?P<version>[\w.!+*]+)")


class Translated(NamedTuple):
    """``kind``: python, build, package, brought-along (nothing to do), native (nobody here has it) or unreadable."""

    kind: str
    name: str
    requirement: str
    version_lost: bool = False


def translate(spec: str) -> Translated:
    """Say in pip's words what one line of a conda file asks for."""
    found = _SPEC.fullmatch(spec.strip())
    if found is None:
        return Translated("unreadable", spec, "")
    name = re.sub(r"[_.]+", "-", found["name"].lower())
    raw_name = found["name"].lower()
    version = _version(found["rest"])
    lost = version is None
    if name == "python":
        # A pin of conda's is a beginning, whichever sign it has: `=3.9` means any 3.9.
        return Translated("python", name, re.sub(r"\.\*", "", (version or "").removeprefix("==")), lost)
    if name in BUILD:
        return Translated("build", name, found["name"] + (version or ""), lost)
    if raw_name.startswith("_") or _BROUGHT_ALONG.fullmatch(name):
        return (
            Translated("brought-along", name, "")
            if name not in _RENAMED
            else _package(name, version or "", lost, found["name"])
        )
    if name not in _RENAMED and _NATIVE.fullmatch(name):
        return Translated("native", name, "")
    return _package(name, version or "", lost, found["name"])


def _package(name: str, version: str, lost: bool, written: str) -> Translated:
    pip_name = _RENAMED.get(name, written)
    if pip_name in _LONGER_VERSIONS:
        version = re.sub(r"==([\d.]+)(?=,|$)", lambda found: f"=={found[1].rstrip('.')}.*", version)
    return Translated("package", name, pip_name + version, lost)


def _version(text: str) -> str | None:
    """Conda's version, build dropped, as a PEP 440 specifier; "" for any version, None for what pip cannot say."""
    text = text.strip()
    inner = re.fullmatch(r"\[(?:.*,)?\s*version\s*=\s*['\"]?([^'\"\]]+)['\"]?.*\]", text)
    if inner is not None:
        text = inner[1].strip()
    elif text.startswith("["):
        return ""
    text = re.sub(r"\s*\[.*\]$", "", text)
    if text in ("", "*", "=*"):
        return ""
    if "|" in text:
        return None
    # `=1.2=py39_0` and `1.2 py39_0` carry a build; `=1.2` alone is a beginning.
    build = re.fullmatch(r"(=?=?)\s*([\w.!+*]+?)(?:=|\s+)(\S+)", text)
    if build is not None and "," not in text:
        text = f"=={build[2]}" if "*" not in build[2] else f"={build[2]}"
    # A build may follow a range, too: `>=1.2,<2 py39_0`.
    text = re.sub(r"(?<=[\w*])\s+\w+$", "", text)
    clauses = [_clause(part.strip()) for part in text.split(",")]
    return None if None in clauses else ",".join(clause for clause in clauses if clause)


def _clause(text: str) -> str | None:
    found = _CLAUSE.fullmatch(text)
    if found is None:
        return "" if text == "*" else None
    sign, version = (
        found["sign"] or "==",
        found["version"].rstrip("*").rstrip(".") if "*" in found["version"] else found["version"],
    )
    if not version[:1].isdigit() and not version.startswith("v"):
        return None
    if sign == "=" or "*" in found["version"]:
        if sign == "!=":
            return f"!={version}.*"
        if sign in (">=", "<=", ">", "<"):
            return f"{sign}{version}"
        return f"=={version}.*" if re.fullmatch(r"[\d.!]+", version) else f"=={version}"
    return f"{'==' if sign == '===' else sign}{version}"
