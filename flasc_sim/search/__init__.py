"""Finds the configuration that a byte budget or a target accuracy asks for, by simulating it.

space.py    what may be chosen: rank, density, head density, encoding, base
goals.py    what is wanted of a run: an accuracy, or no more than so many bytes
growth.py   FLASC-Search, reconstructed: grow the rank or the density, whichever gains more
halving.py  successive halving over the whole space, by Optuna
finalists.py  the best of them again with further seeds
trials.py   a configuration as a run on disk: measured, stopped and taken up again
report.py   what a search found: records, a curve, and settings to go on with
"""
