"""Analytic edits of an image inside a region, and how an encoder responds to them.

Nothing here draws a picture of another patient: an edit is a formula with a dose. What it does to
the image is in `lens.edits.intensity`, `lens.edits.filters` and `lens.edits.shape`; which edits
there are, in which units, in `lens.edits.catalogue`; what they are compared with in
`lens.edits.place` and `lens.edits.versions`; how the response is measured and tested in
`lens.edits.heads` and `lens.edits.responses`.
"""
