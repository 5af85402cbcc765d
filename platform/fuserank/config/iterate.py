"""When a run retrains on what it served, and what the new generation must prove (`fuserank iterate`)."""

from fuserank.config.section import Positive, Section, Weight


class Iterate(Section):
    """Both generations answer the same held-out queries and users."""

    events: Positive = 200  # new ones since the last iteration, or it waits for more
    margin: Weight = 0.0  # that the lower bound of one figure's difference must lie above, in nDCG
    loss: Weight = 0.01  # that no figure may be worse by more than
    fewest: Positive = 50  # queries or users, or a figure does not count
