"""The rest: what of an encoder's change radiomic features do not tell, and in which patients."""
