"""The commands: flags in, one call, a short report out.

TensorFlow is imported by the call, not by these modules: render processes import the main module too.
"""

from sourcesep.cli.evaluate_command import evaluate
from sourcesep.cli.export_command import export
from sourcesep.cli.separate_command import separate
from sourcesep.cli.train_command import train
from sourcesep.cli.web_command import web

__all__ = ["evaluate", "export", "separate", "train", "web"]
