"""The pronunciation model: English spelling to the phonemes of the CMU Pronouncing Dictionary."""
