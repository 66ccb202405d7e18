"""Constants: FER2013's expressions and splits, the size of a face, names of files."""

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")  # FER2013's labels 0 to 6
SPLITS = ("Training", "PublicTest", "PrivateTest")  # for training, for validation, for testing
IMAGE_SIZE = 48  # width and height of a grey face, in pixels
SHIPPED_MODEL = "pretrained/saved_model.bin"  # beside the code
SHAPE_PREDICTOR = "shape_predictor_68_face_landmarks.dat"
