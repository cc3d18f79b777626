"""Present a prediction: a self-contained page, a picture, or the annotated clip.

`figures.py` computes the figures over time, `page.py` renders them with the templates,
`picture.py` draws a PNG, `annotation.py` a video.
"""
