"""Predict and score with a finished run, or with a plain transformers checkpoint. Floor 5.

folder.py finds and loads the model, plain.py reads its task off a checkpoint, predictor.py turns inputs into typed
results, files.py does so for files, score.py scores labelled ones.
"""

from headswap.predict.files import predict_file
from headswap.predict.predictor import Predictor, load
from headswap.predict.score import Score, evaluate

__all__ = ["Predictor", "Score", "evaluate", "load", "predict_file"]
