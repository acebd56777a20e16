from .checkpoints import load as load
from .checkpoints import save as save
from .convnext import ConvNeXtV2 as ConvNeXtV2
from .convnext import ConvNeXtV2Config as ConvNeXtV2Config
from .embedding import embed as embed
from .finetuning import finetune as finetune
from .pretraining import pretrain as pretrain
from .steps import TrainingSettings as TrainingSettings
