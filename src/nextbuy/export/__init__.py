"""Networks of a bundle as files that other languages can ask: one ONNX file beside its catalog."""

from nextbuy.export.writing import Exported, export_onnx

__all__ = ["Exported", "export_onnx"]
