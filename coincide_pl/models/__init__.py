"""Loading Hugging Face models, the reference and target modules, the tiny built-in model."""

from coincide_pl.models.checkpoint import LastCheckpoint
from coincide_pl.models.clip import CLIPModule
from coincide_pl.models.export import ExportModel
from coincide_pl.models.lora import LoRA
from coincide_pl.models.optimization import CosineWithWarmup
from coincide_pl.models.reference import ReferenceModule
from coincide_pl.models.self_filter import SelfFilterModule
from coincide_pl.models.target import TargetModule

__all__ = [
    "CLIPModule",
    "CosineWithWarmup",
    "ExportModel",
    "LastCheckpoint",
    "LoRA",
    "ReferenceModule",
    "SelfFilterModule",
    "TargetModule",
]
