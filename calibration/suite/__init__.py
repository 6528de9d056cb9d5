"""The calibration suite: what is measured on a GPU (the plan), how (timing, benches), and where it goes (raw samples).

The plan and the samples need no torch; `bench_*`, `lab`, `timing` and `runner` do.
"""
