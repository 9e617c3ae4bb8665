"""Running a bench: references, calibration, runs, evaluations."""
