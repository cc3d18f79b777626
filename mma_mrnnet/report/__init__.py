"""A prediction for people to look at: a self-contained page, a picture, or the annotated clip.

`figures.py` computes what a page shows over time, `page.py` renders it with the templates,
`picture.py` draws a PNG, `annotation.py` a video.
"""
