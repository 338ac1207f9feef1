"""voxgrain, llama.cpp and onnxruntime on the same weights, in one alternating run."""
