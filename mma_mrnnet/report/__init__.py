"""A prediction for people to look at: one self-contained page, a picture, or the clip itself with what was read on it.

figures.py draws the page's parts, page.py puts them together, picture.py draws a PNG, annotation.py a video.
"""
