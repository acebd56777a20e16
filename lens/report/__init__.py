"""The tables, figures and page of a run folder."""
