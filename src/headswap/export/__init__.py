"""Take a finished run's model elsewhere: as ONNX, or to the hub. Floor 5.

onnx.py writes and proves model.onnx, graph.py knows which models it can write, push.py uploads model/.
"""

from headswap.export.onnx import Exported, to_onnx
from headswap.export.push import push

__all__ = ["Exported", "push", "to_onnx"]
