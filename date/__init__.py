"""DATE (arXiv 2211.13859) reproduced: the method, its experiments as data, and the pipeline around them."""
