"""Video: reading frames, following faces from frame to frame, showing and recording them."""
