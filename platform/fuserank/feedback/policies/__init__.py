"""Bandits over slates of re-ranked candidates: one file a policy, on one kind of state.

B requests · K candidates of each · F features of a candidate · S positions of a slate.
"""
