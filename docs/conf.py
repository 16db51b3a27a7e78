"""How the documentation is built: `make docs`."""

from importlib.metadata import version as version_of
from pathlib import Path
from xml.etree.ElementTree import tostring

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from snapvideo.recipes.ablation_results import read_outcome
from snapvideo.recipes.results import read_result, refuse_different, table

project = "snapvideo"
author = "the snapvideo authors"
copyright = f"2026, {author}"
version = release = version_of("snapvideo")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "evaluate/generated"]
html_theme = "furo"
html_title = f"snapvideo {version}"
default_role = "py:obj"  # `Backbone` in a docstring links to the class

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_default_options = {"ignore-module-all": True}  # a class is documented where it is written
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def visit_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def keep_colon(app, what, name, obj, options, lines):
    """At an attribute, napoleon takes what is before a colon for a type, in the first line: make that a comment."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


def tell_results(app):
    """Tables and plots of the records of ablations and evaluations, which pages include."""
    results = Path(app.srcdir) / "evaluate" / "results"
    made = results.with_name("generated")
    made.mkdir(exist_ok=True)
    for file in sorted((results / "ablations").glob("*.json")):
        outcome = read_outcome(file)
        (made / f"{file.stem}.md").write_text(outcome.table() + "\n")
        (made / f"{file.stem}.svg").write_bytes(tostring(outcome.plot()))
    models = {file.name: read_result(file) for file in sorted((results / "models").glob("*.json"))}
    refuse_different(models)
    (made / "models.md").write_text(table(list(models.values())) + "\n")


def setup(app):
    """Formulas become MathML while building: the pages load nothing from elsewhere and need no script."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("autodoc-process-docstring", keep_colon, priority=400)
    app.connect("builder-inited", tell_results)
