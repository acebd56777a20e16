from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .paper.importance import importance as importance
from .paper.shift import shift as shift
from .probes.decoder import decode as decode
from .probes.mlp import project as project
from .probes.refit import refit as refit
from .probes.sweep import sweep as sweep
from .settings import Settings as Settings
from .settings import SweepConfig as SweepConfig
from .study.load import load_study as load_study
from .study.study import Study as Study

__version__: str
