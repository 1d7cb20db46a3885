"""Table 1 of the paper (Yang et al., ICML 2024): overall IoU in per cent, LAVT."""

# data set -> method -> labeled share -> one number for each evaluation split of `SPLITS[data set].evaluation`
TABLE1: dict[str, dict[str, dict[float, tuple[float, ...]]]] = {
    "refcoco": {
        "supervised": {
            0.005: (22.37, 25.35, 19.28),
            0.01: (32.26, 35.71, 28.02),
            0.02: (39.46, 42.50, 35.26),
            0.05: (49.40, 53.72, 44.87),
        },
        "baseline": {
            0.005: (30.33, 35.18, 25.74),
            0.01: (42.62, 48.86, 37.43),
            0.02: (51.05, 54.75, 46.34),
            0.05: (60.58, 64.98, 54.85),
        },
        "semires": {
            0.005: (40.31, 46.48, 34.88),
            0.01: (50.90, 57.54, 44.48),
            0.02: (54.85, 60.39, 48.52),
            0.05: (61.31, 66.64, 55.94),
        },
    },
    "refcoco+": {
        "supervised": {
            0.005: (20.83, 24.53, 16.25),
            0.01: (24.76, 29.11, 20.29),
            0.02: (28.88, 32.41, 24.49),
            0.05: (37.60, 42.32, 32.39),
        },
        "baseline": {
            0.005: (25.89, 30.42, 20.23),
            0.01: (30.91, 35.83, 24.98),
            0.02: (36.98, 41.44, 30.63),
            0.05: (46.29, 52.46, 38.61),
        },
        "semires": {
            0.005: (31.99, 38.06, 25.92),
            0.01: (36.49, 42.86, 28.58),
            0.02: (40.41, 46.84, 33.30),
            0.05: (47.00, 54.42, 38.74),
        },
    },
    "refcocog": {
        "supervised": {
            0.005: (18.33, 18.69),
            0.01: (24.31, 24.72),
            0.02: (28.23, 29.86),
            0.05: (37.25, 38.62),
        },
        "baseline": {
            0.005: (26.02, 27.62),
            0.01: (30.91, 31.51),
            0.02: (37.07, 38.55),
            0.05: (46.67, 48.39),
        },
        "semires": {
            0.005: (31.81, 33.40),
            0.01: (34.76, 36.18),
            0.02: (42.15, 43.49),
            0.05: (47.61, 50.11),
        },
    },
}


def published(split: str, method: str, share: float, column: int) -> float | None:
    """The paper's number of one cell; None where it has none (RefShapes, other shares)."""
    cells = TABLE1.get(split, {}).get(method, {}).get(share)
    return None if cells is None else cells[column]
