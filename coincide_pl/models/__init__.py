"""Loading Hugging Face models, the reference and target modules, the tiny built-in model."""

from coincide_pl.models.checkpoint import EpochCheckpoints, LastCheckpoint
from coincide_pl.models.clip import CLIPModule
from coincide_pl.models.export import ExportModel
from coincide_pl.models.gradients import GradientModule
from coincide_pl.models.lora import LoRA
from coincide_pl.models.optimization import CosineWithWarmup
from coincide_pl.models.reference import ReferenceModule
from coincide_pl.models.self_filter import SelfFilterModule
from coincide_pl.models.target import TargetModule
from coincide_pl.models.vision import VisionModule

__all__ = [
    "CLIPModule",
    "CosineWithWarmup",
    "EpochCheckpoints",
    "ExportModel",
    "GradientModule",
    "LastCheckpoint",
    "LoRA",
    "ReferenceModule",
    "SelfFilterModule",
    "TargetModule",
    "VisionModule",
]
