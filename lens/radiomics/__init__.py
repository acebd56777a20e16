"""Images to numbers: PyRadiomics features per modality and region, and their names."""
