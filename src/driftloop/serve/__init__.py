"""Answering: slots round loaded models, over HTTP and over tables. The door to onnxruntime."""
