"""A world whose truth is known: users of a shop, what they like, and how often they buy what is shown to them."""

import numpy as np

FEATURES = ["shop", "age", "visits", "basket"]
RIGHT, WRONG = 0.36, 0.14  # the share of users who buy when they are shown what they like, and when not


def users(random, n, shops=4):
    """Rows of features. Since the models were trained a fifth shop may have opened."""
    return np.column_stack(
        [
            random.integers(shops, size=n).astype(float),
            random.normal(40, 12, n),
            random.poisson(3, n).astype(float),
            random.gamma(2.0, 20.0, n),
        ]
    )


def likes(rows):
    """What each user likes: 1 or 0."""
    return (0.08 * (rows[:, 1] - 40) + 0.4 * (rows[:, 2] - 3) + 0.02 * (rows[:, 3] - 40) > 0).astype(int)


def buys(random, shown, liked):
    return random.random() < (RIGHT if shown == liked else WRONG)
