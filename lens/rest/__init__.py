"""The rest: what of an encoder's change the radiomic features do not tell, and in which patients."""
