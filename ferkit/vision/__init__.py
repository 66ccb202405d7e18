"""Pictures: reading and writing them, finding faces, cropping and drawing."""
