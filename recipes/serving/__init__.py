"""A page in the browser on which people try a model: ``snapvideo serve``."""
