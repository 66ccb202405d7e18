"""FER2013: reading, conversion, and loading of the converted dataset; drawn faces in the same layout."""
