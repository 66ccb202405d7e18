"""Constants: FER2013's expressions and splits, the size of a face, names of files."""

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")  # FER2013's labels 0 to 6
SPLITS = ("Training", "PublicTest", "PrivateTest")  # for training, for validation, for testing
IMAGE_SIZE = 48  # width and height of a grey face, in pixels
# The models beside the code, by their short names.
SHIPPED_MODELS = {
    "ferplus": "pretrained/ferplus/saved_model.bin",
    "fer2013": "pretrained/saved_model.bin",
    "fer2013_large": "pretrained/fer2013_large/saved_model.bin",
}
MIXTURES = {"mixed": "ferplus+ferplus+fer2013_large"}  # short names of several that answer together
DEFAULT_MODEL = "mixed"  # unless another one is named
TEACHER = SHIPPED_MODELS["fer2013"]  # from which networks learn with settings=taught
SHAPE_PREDICTOR = "shape_predictor_68_face_landmarks.dat"
