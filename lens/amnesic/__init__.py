"""Amnesic radiomics: what a task loses when a cluster of features is erased from the embedding."""
