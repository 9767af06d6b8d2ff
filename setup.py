"""Metadata of the distribution; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "wse_tornado/__init__.py").read_text("utf-8"), re.MULTILINE
).group(1)

FAST = [
    "uvloop>=0.19; platform_system != 'Windows' and implementation_name == 'cpython'",
    "msgspec>=0.19",
]
MSGPACK = ["msgpack>=1.0"]
BENCH = [
    "picows>=1.8",
    "python-socketio[client]>=5.11",
    "trustme>=1.2",
    "websocket-client>=1.7",
    "websockets>=14",
]

setup(
    name="wse-tornado",
    version=VERSION,
    description="Authenticated WebSocket users with several devices each, on Tornado: "
    "messages and calls both ways, with a blocking facade",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["wse_tornado", "wse_tornado.*"]),
    py_modules=["pytest_wse_tornado"],
    package_data={"wse_tornado": ["py.typed", "static/*"]},
    python_requires=">=3.10",
    install_requires=["tornado>=6.5"],
    extras_require={
        "fast": FAST,
        "msgpack": MSGPACK,
        "bench": [*FAST, *BENCH],
        "docs": ["furo>=2024.8", "myst-parser>=4", "sphinx>=8", *MSGPACK],
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "flask>=3",
            "hypothesis>=6.100",
            "trustme>=1.2",
            *MSGPACK,
        ],
    },
    entry_points={
        "console_scripts": ["wse-tornado = wse_tornado.cli:main"],
        # Named as its module is: ``-p pytest_wse_tornado`` beside it loads it once.
        "pytest11": ["pytest_wse_tornado = pytest_wse_tornado"],
    },
    keywords="websocket tornado rpc blocking synchronous authentication wse",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
