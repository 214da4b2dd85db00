"""Plans for and from other programs: llama.cpp's control vectors, EasySteer, Neuronpedia."""
