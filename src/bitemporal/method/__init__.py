"""The method of the JL1-CD paper (arXiv 2502.13407): CAR, Origin-Partition, teachers, distillation loss."""
