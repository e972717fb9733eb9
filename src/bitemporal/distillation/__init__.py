"""CAR-partitioned multi-teacher knowledge distillation (MTKD): one generic module for any student and teachers."""

from bitemporal.distillation.criteria import KL_WEIGHT, criterion, kullback_leibler, mean_squared_error
from bitemporal.distillation.task import DistillationTask, TeacherBank

__all__ = [
    "KL_WEIGHT",
    "DistillationTask",
    "TeacherBank",
    "criterion",
    "kullback_leibler",
    "mean_squared_error",
]
