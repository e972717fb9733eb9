"""Origin-Partition as a detector like any other; ``bitemporal.method.origin_partition`` holds the rule."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bitemporal.errors import OptionError
from bitemporal.inference.detector import Answer, Detector, check_detector
from bitemporal.method.car import CarPartition
from bitemporal.method.origin_partition import check_teachers, route


class OriginPartition(Detector):
    """An origin and a teacher for each CAR part (JL1-CD paper, arXiv 2502.13407, section on Origin-Partition).

    The whole batch passes through the origin at once, then the pairs of each part pass through their teacher at once:
    at most one batched pass per part and padded size. The origin answers for a part without a teacher.
    """

    def __init__(self, origin: Detector, teachers: Mapping[str, Detector], partition: CarPartition) -> None:
        """Put the detector together.

        Args:
            origin: Detector trained on all pairs.
            teachers: Detectors by the name of their part; parts may be missing.
            partition: Which CAR belongs to which part.

        Raises:
            PartitionError: When a teacher's name is not a part of the partition.
            OptionError: When one of them is no detector, or a teacher takes another number of channels than the origin.
        """
        check_teachers(teachers, partition)
        check_detector(origin, "origin")
        for part, teacher in teachers.items():
            check_detector(teacher, f"the teacher of {part}")
            if teacher.channels != origin.channels:
                raise OptionError(
                    f"teachers: the teacher of {part} takes images of {teacher.channels} channels, the origin of "
                    f"{origin.channels}; expected the same"
                )
        self.origin = origin
        self.teachers = dict(teachers)
        self.members = [origin, *self.teachers.values()]
        self.partition = partition

    def identity(self) -> dict[str, Any]:
        """The identities of its networks, and the thresholds."""
        return {
            "origin": self.origin.identity(),
            "teachers": {part: teacher.identity() for part, teacher in self.teachers.items()},
            "thresholds": list(self.partition.thresholds),
        }

    def answers(
        self, before: Sequence[Tensor], after: Sequence[Tensor], valid: Sequence[Tensor] | None = None
    ) -> list[Answer]:
        """Answer pairs, which may differ in size; each answer names the part that its pair was sent to."""
        probabilities = [answer.probability for answer in self.origin.answers(before, after, valid)]
        parts = route([probability[0] for probability in probabilities], self.partition, valid)
        pairs_of_part: dict[str, list[int]] = defaultdict(list)
        for index, part in enumerate(parts):
            pairs_of_part[part].append(index)
        for part, pairs in pairs_of_part.items():
            if part not in self.teachers:
                continue
            answers = self.teachers[part].answers(
                [before[i] for i in pairs],
                [after[i] for i in pairs],
                None if valid is None else [valid[i] for i in pairs],
            )
            for i, answer in zip(pairs, answers, strict=True):
                probabilities[i] = answer.probability.to(self.device)
        return [Answer(probability, part) for probability, part in zip(probabilities, parts, strict=True)]
