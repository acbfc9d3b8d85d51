"""How Sphinx reads this folder: Markdown, and docstrings of the package beside it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import django  # noqa: E402
from django.conf import settings  # noqa: E402

import ws4redis_tx  # noqa: E402

# For the docstrings of what may be imported in a Django site only.
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
django.setup()

project = "ws4redis_tx"
author = "the authors of ws4redis_tx"
version = release = ws4redis_tx.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# A block without a language is a picture.
highlight_language = "text"

myst_heading_anchors = 3
# A page that is still to be written has its place in index.md.

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"ws4redis_tx {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_copyright = False
