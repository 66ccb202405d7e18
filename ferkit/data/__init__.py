"""FER2013: reading it, converting it, loading what was converted; drawn faces in its layout."""
