"""Label texts with a finished run, or with any plain transformers sequence classifier. Floor 5.

folder.py finds and loads the model, predictor.py labels texts, tables.py labels files.
"""

from headswap.predict.predictor import Answer, Predictor
from headswap.predict.tables import predict_file

__all__ = ["Answer", "Predictor", "predict_file"]
