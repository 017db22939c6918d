"""Twenty measurements of the speed of light in air, in km/s above 299,000.

A. A. Michelson, Experimental Determination of the Velocity of Light, 1880: the first of five
series of twenty.
"""

ABOVE_299000 = (
    850, 740, 900, 1070, 930, 850, 950, 980, 980, 880,
    1000, 980, 930, 650, 760, 810, 1000, 1000, 960, 960,
)  # fmt: skip
KM_PER_S = tuple(299_000 + value for value in ABOVE_299000)
