"""Facts that never change: FER2013's expressions and splits, the size of a face, names of files."""

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")  # FER2013's labels 0 to 6
SPLITS = ("Training", "PublicTest", "PrivateTest")  # to learn from, to choose by, to report
IMAGE_SIZE = 48  # a face is a square of so many grey pixels
SHIPPED_MODEL = "pretrained/saved_model.bin"  # beside the code
SHAPE_PREDICTOR = "shape_predictor_68_face_landmarks.dat"
